#include "tests/control/node/test_cluster.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <utility>

#include "base/arena.h"
#include "base/status.h"
#include "control/node/bootstrap.h"
#include "dataplane/archive/reader.h"
#include "dataplane/block/block.h"

namespace sluice {

namespace {

void require(const absl::Status& status) { ASSERT_TRUE(status.ok()) << message_of(status); }

}  // namespace

TestCluster::TestCluster(const Options& options) : options_(options) {
  char folder[] = "/tmp/sluice-test-XXXXXX";
  EXPECT_NE(mkdtemp(folder), nullptr);
  folder_ = folder;
  url_ = "sqlite:" + folder_ + "/cluster.db";
  auto block = open_cluster_block(url_, {.create = true});
  require(block.status());
  block_ = *std::move(block);
  require(make_cluster(*block_, {options.slot_bits, options.replicas, 42, {}}).status());
  nodes_.resize(options.nodes);
  for (size_t i = 0; i < options.nodes; ++i) clocks_.push_back(std::make_unique<SkewedClock>());
  for (size_t i = 0; i < options.skews_ms.size(); ++i) clocks_[i]->skew(options.skews_ms[i]);
  for (size_t i = 0; options.calls != nullptr && i <= options.nodes; ++i) {
    dialers_.push_back(options.calls->make_dialer(i < options.nodes ? name(i) : "client"));
  }
  for (size_t i = 0; i < options.nodes; ++i) start(i);
  require(publish_first_table(*block_, options.nodes, 10'000));
  for (const auto& node : nodes_) EXPECT_TRUE(node->wait_until_serving(10'000));
}

TestCluster::~TestCluster() {
  for (auto& node : nodes_) node.reset();
  block_.reset();
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

void TestCluster::start(size_t i, bool accept_data_loss) {
  require(try_start(i, accept_data_loss));
}

absl::Status TestCluster::try_start(size_t i, bool accept_data_loss) {
  NodeOptions options;
  options.config.name = name(i);
  options.config.cluster = url_;
  options.config.data_folder = folder_ + "/" + name(i) + "/data";
  options.config.archive_folder = folder_ + "/" + name(i) + "/archives";
  options.config.weight = 1.0;
  options.config.arena_bytes = size_t{112} << 20;
  options.config.memtable_bytes = size_t{8} << 20;
  options.config.block_cache_bytes = size_t{8} << 20;
  options.config.lease_ms = 1000;
  options.config.accept_data_loss = accept_data_loss;
  options.clock = clocks_[i].get();
  options.backup = options_.backup;
  if (options_.fabric != nullptr) {
    options.transport = transport_of(name(i));
    options.config.data_listen = name(i);
  }
  if (options_.calls != nullptr) {
    options.dialer = dialers_[i].get();
    options.serve = options_.calls->server_factory();
  }
  if (options_.adjust) options_.adjust(i, options);
  if (options_.wrap_block) {
    auto block = open_cluster_block(url_);
    require(block.status());
    node_blocks_.push_back(options_.wrap_block(*std::move(block)));
    options.block = node_blocks_.back().get();
  }
  auto node = Node::start(options);
  if (node.ok()) nodes_[i] = *std::move(node);
  return node.status();
}

TransportFactory TestCluster::transport_of(const std::string& node) const {
  return [fabric = options_.fabric, node](std::string_view) {
    return absl::StatusOr<std::unique_ptr<Transport>>(
        std::make_unique<SimTransport>(*fabric, node));
  };
}

void TestCluster::stop(size_t i) { nodes_[i].reset(); }

std::unique_ptr<ClusterClient> TestCluster::client() {
  ClientOptions options;
  options.idle_timeout_ms = 30'000;
  if (options_.calls != nullptr) options.dialer = dialers_.back().get();
  if (options_.fabric != nullptr) options.transport = transport_of("client");
  auto client = ClusterClient::open(url_, options);
  require(client.status());
  return *std::move(client);
}

bool eventually(int64_t timeout_ms, const std::function<bool()>& done) {
  const int64_t deadline = system_clock().monotonic_ns() + timeout_ms * 1'000'000;
  while (!done()) {
    if (system_clock().monotonic_ns() > deadline) return false;
    system_clock().sleep_ns(20'000'000);
  }
  return true;
}

std::map<std::string, Record> read_archive(const std::vector<ArchivePlace>& places) {
  std::map<std::string, Record> records;
  std::vector<std::string> folders;
  for (const ArchivePlace& place : places) folders.push_back(place.path);
  auto archive = ArchiveReader::open(folders);
  require(archive.status());
  if (!archive.ok()) return records;
  auto arena = Arena::create({.bytes = 2 * kBufferBytes});
  require(arena.status());
  auto pool = (*arena)->make_pool("test", 1);
  require(pool.status());
  BlockBuffer buffer = (*pool)->try_take();
  for (size_t part = 0; part < (*archive)->parts().size(); ++part) {
    for (const BlockLocation& location : (*archive)->parts()[part].blocks) {
      require((*archive)->read_block(part, location, buffer.span()));
      auto reader = BlockReader::open(buffer.span());
      require(reader.status());
      BlockEntry entry;
      while (true) {
        const auto more = reader->next(&entry);
        require(more.status());
        if (!more.ok() || !*more) break;
        Record& record = records[std::string(entry.key)];
        record.version = entry.version;
        record.tombstone = entry.tombstone;
        record.value += entry.fragment;
      }
    }
  }
  return records;
}

std::map<std::string, std::string> read_cluster(ClusterClient& client) {
  std::map<std::string, std::string> records;
  const auto totals = client.export_records({}, [&](std::string_view key, std::string_view value) {
    EXPECT_TRUE(records.emplace(key, value).second) << "twice: " << key;
    return absl::OkStatus();
  });
  require(totals.status());
  return records;
}

}  // namespace sluice
