// Trees of files beside records in one backup, over real streams and archives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "base/status.h"
#include "dataplane/archive/record_reader.h"
#include "dataplane/source/source_set.h"
#include "dataplane/tree_source/tree_source.h"
#include "tests/dataplane/pipeline/cluster.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kTree = 3;
constexpr size_t kOwner = 1;  // the node whose tree it is

class TreeBackup : public ::testing::Test {
 protected:
  TreeBackup() : cluster_({}) {
    Random random(1);
    for (int i = 0; i < 50; ++i) {
      cluster_.put(make_record(fmt::format("key-{}", i), random_value(random, 1000), -1));
    }
    cluster_.cut();
    fs::create_directories(in());
  }
  fs::path in() const { return fs::path(cluster_.folder.path()) / "tree"; }
  void write(const std::string& path, const std::string& content) {
    fs::create_directories((in() / path).parent_path());
    std::ofstream(in() / path, std::ios::binary) << content;
  }
  void write_some() {
    Random random(2);
    for (int i = 0; i < 60; ++i) {
      write(fmt::format("d{}/file-{}", i % 7, i), random_value(random, random.below(40'000)));
    }
    write("d1/large", random_value(random, size_t{5} << 20));
    write("d2/empty", "");
    fs::create_symlink("file-1", in() / "d1/link");
  }

  std::shared_ptr<TreeSource> look() {
    TreeSourceOptions options;
    options.root = in();
    options.catalogue =
        *TreeCatalogue::open(cluster_.folder.path() + "/catalogue", cluster_.options.slot_bits);
    options.number = kTree;
    options.slot_bits = cluster_.options.slot_bits;
    auto source = TreeSource::open(options);
    EXPECT_TRUE(source.ok()) << source.status();
    std::shared_ptr<TreeSource> tree = *std::move(source);
    EXPECT_TRUE(tree->look(false, nullptr).ok());
    return tree;
  }

  // Plans the tree's slots: its owner sends them to the targets in turn.
  void add(Backup& backup, const std::shared_ptr<TreeSource>& tree) const {
    size_t next = 0;
    for (const auto& [shard, totals] : tree->shards()) {
      ConsolidationSlot planned;
      planned.slot = tree_slot(kTree, shard);
      planned.told = true;
      planned.senders = {{"n2", SlotDigest()}};
      Backup::Target& target = backup.targets[next++ % backup.targets.size()];
      target.agreed[kOwner].push_back(planned.slot);
      target.options.slots.push_back(std::move(planned));
    }
    for (const auto& cut : backup.cuts) {
      auto set = std::make_shared<SourceSet>();
      set->add(0, cut);
      if (backup.sources.size() == kOwner) set->add(kTree, tree);
      backup.sources.push_back(set);
    }
    backup.manifest.trees = {{kTree, "project", "n2"}};
  }

  static void expect_verifies(Cluster& cluster, const Backup& backup) {
    const auto report = verify_archive(backup.folders(), *cluster.node(0).arena, nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    for (const VerifyProblem& problem : report->bad) {
      ADD_FAILURE() << problem.file << " at " << problem.offset << ": " << problem.reason;
    }
  }

  // The content of the archive's files, by path.
  static std::map<std::string, std::string> files(const std::vector<std::string>& folders) {
    const auto archive = ArchiveReader::open(folders, nullptr, kTree);
    EXPECT_TRUE(archive.ok()) << archive.status();
    const auto reader = RecordReader::open(**archive);
    EXPECT_TRUE(reader.ok()) << reader.status();
    std::map<std::string, std::string> values;
    RecordScan scan;
    scan.value_bytes = kMaxBlockBytes;
    const absl::Status scanned = (*reader)->scan(scan, [&](const ArchivedRecord& record) {
      values[std::string(record.key)] = record.value;
      return absl::OkStatus();
    });
    EXPECT_TRUE(scanned.ok()) << scanned;
    std::map<std::string, std::string> files;
    for (const auto& [key, value] : values) {
      const auto entry = parse_tree_entry(value);
      EXPECT_TRUE(entry.ok()) << entry.status();
      if (!entry.ok() || entry->header.kind != TreeKind::kFile) continue;
      const std::string path = key.substr(0, key.find('\0'));
      files[path] = entry->content;
      for (uint32_t i = 0; entry->header.generation != 0 && i < entry->header.chunks(); ++i) {
        const auto chunk =
            parse_tree_entry(values[tree_chunk_key(path, entry->header.generation, i)]);
        EXPECT_TRUE(chunk.ok()) << chunk.status();
        if (chunk.ok()) files[path] += chunk->content;
      }
    }
    return files;
  }
  std::map<std::string, std::string> files_on_disk() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(in())) {
      if (!entry.is_regular_file() || entry.is_symlink()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      files[fs::relative(entry.path(), in())] = {std::istreambuf_iterator<char>(file), {}};
    }
    return files;
  }

  Cluster cluster_;
};

TEST_F(TreeBackup, IsInTheArchiveBesideTheRecords) {
  write_some();
  Backup backup(cluster_, {0, 2});
  add(backup, look());
  backup.start();
  ASSERT_TRUE(backup.send().ok());
  backup.commit();
  expect_verifies(cluster_, backup);
  EXPECT_EQ(files(backup.folders()), files_on_disk());
  // Whoever reads the records sees nothing of it.
  EXPECT_EQ(backup.manifest.records(), 50);
  const std::map<std::string, Record> records = archived(backup.folders());
  EXPECT_EQ(records.size(), 50);
  for (const auto& [key, record] : cluster_.newest()) EXPECT_TRUE(records.contains(key)) << key;
}

TEST_F(TreeBackup, FilesMayChangeBetweenALookAndAScan) {
  write_some();
  {
    Backup first(cluster_, {0});
    add(first, look());
    first.start();
    ASSERT_TRUE(first.send().ok());
  }
  fs::remove_all(cluster_.node(0).folder + "/archive");
  const auto tree = look();
  for (const auto& [shard, totals] : tree->shards()) EXPECT_TRUE(totals.known) << shard;
  Backup second(cluster_, {0}, 2);
  add(second, tree);
  for (const auto& entry : fs::recursive_directory_iterator(in())) {
    if (entry.is_regular_file()) std::ofstream(entry.path(), std::ios::app) << "more";
  }
  second.start();
  ASSERT_TRUE(second.send().ok());
  second.commit();
  expect_verifies(cluster_, second);
  EXPECT_EQ(files(second.folders()), files_on_disk());
}

TEST_F(TreeBackup, AnotherAttemptGoesOnFromWhatIsDurable) {
  write_some();
  const auto tree = look();
  std::atomic<int64_t> room{2 << 20};
  uint64_t durable = 0;
  {
    Backup first(cluster_, {0}, 1);
    add(first, tree);
    first.targets[0].options.sync_ms = 1;
    first.targets[0].writer_options.write = [&](int fd, const void* bytes, size_t size,
                                                off_t offset) -> ssize_t {
      if (room.fetch_sub(static_cast<int64_t>(size)) < static_cast<int64_t>(size)) {
        errno = ENOSPC;
        return -1;
      }
      return ::pwrite(fd, bytes, size, offset);
    };
    first.start();
    EXPECT_FALSE(first.send().ok());
    EXPECT_FALSE(first.targets[0].consolidation->wait(10'000).ok());
    durable = first.targets[0].consolidation->progress().slots_durable;
  }
  Backup second(cluster_, {0}, 2);
  add(second, tree);
  second.start();
  ASSERT_TRUE(second.send().ok());
  second.commit();
  EXPECT_EQ(second.sent.slots_skipped, durable);
  expect_verifies(cluster_, second);
  EXPECT_EQ(files(second.folders()), files_on_disk());
}

// A source that tells another digest than that of what it sent.
class TellsWrong final : public SlotSource {
 public:
  explicit TellsWrong(std::shared_ptr<SlotSource> inner) : inner_(std::move(inner)) {}
  bool has(uint32_t slot) const override { return inner_->has(slot); }
  std::optional<SlotDigest> digest(uint32_t slot) const override { return inner_->digest(slot); }
  std::unique_ptr<SlotScan> scan(uint32_t slot) override {
    class WrongScan final : public SlotScan {
     public:
      explicit WrongScan(std::unique_ptr<SlotScan> scan) : scan_(std::move(scan)) {}
      absl::StatusOr<bool> next(Item* item) override {
        auto more = scan_->next(item);
        if (more.ok() && *more) ++item->summary.value_digest.low;
        return more;
      }
      absl::Status read_value(uint64_t offset, std::span<uint8_t> into) override {
        return scan_->read_value(offset, into);
      }

     private:
      const std::unique_ptr<SlotScan> scan_;
    };
    return std::make_unique<WrongScan>(inner_->scan(slot));
  }

 private:
  const std::shared_ptr<SlotSource> inner_;
};

TEST_F(TreeBackup, WhatIsNotWhatItsSourceTellsIsRefused) {
  write("d/file", "content");
  Backup backup(cluster_, {0});
  add(backup, look());
  backup.sources[kOwner] = std::make_shared<TellsWrong>(backup.sources[kOwner]);
  // Of records the plan says what is due, whatever their source says.
  backup.start();
  EXPECT_FALSE(backup.send().ok());
  const absl::Status ended = backup.targets[0].consolidation->wait(10'000);
  EXPECT_EQ(ended.code(), absl::StatusCode::kDataLoss) << ended;
  EXPECT_THAT(std::string(message_of(ended)), ::testing::HasSubstr("n2"));
}

TEST_F(TreeBackup, APlanWithTwoWhoTellIsRefused) {
  write("d/file", "content");
  Backup backup(cluster_, {0});
  add(backup, look());
  ConsolidationSlot& slot = backup.targets[0].options.slots.back();
  ASSERT_TRUE(slot.told);
  slot.senders.push_back(slot.senders.front());
  const auto writer = ArchiveWriter::open(backup.targets[0].writer_options);
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_EQ(Consolidation::start(*cluster_.node(0).exchange, **writer, backup.targets[0].options)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
