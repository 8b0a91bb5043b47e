// Flips single bits of the files of a closed record store. Opened again, it is refused, or what is
// read is right or an error; or it is an earlier state by its sequence number, or another store,
// with which a node does not join (membership.h). SLUICE_ROUNDS=N: that many flips; SLUICE_SEED=N:
// from this seed on.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

uint64_t setting(const char* name, uint64_t usual) {
  const char* set = std::getenv(name);
  return set == nullptr ? usual : std::strtoull(set, nullptr, 10);
}

enum class Outcome { kRefused, kError, kEarlier, kRight, kWrongRecord, kWrongDigest };

class FlippedStore : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    store_.reset();
    const auto store = open_at(pristine());
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(store->confirm_join().ok());
    Random random(1);
    // Some in table files, the newest in the log.
    for (int batch = 0; batch < 3; ++batch) {
      for (int i = 0; i < 40; ++i) {
        const std::string key = fmt::format("key-{:03}", batch * 25 + i);
        records_[key] = make_record(key, random_bytes(random, 1 + random.below(3000)),
                                    stamp_at(batch * 1000 + i));
      }
      std::vector<RecordView> views;
      for (const auto& [key, record] : records_) views.push_back(record.view());
      ASSERT_TRUE(store->apply(views).ok());
      // The next batch is stamped after it, and what came before is written to table files then.
      const CutInfo cut{std::string(kBackup), stamp_at(batch * 1000 + 500), 1};
      if (batch == 1) {
        ASSERT_TRUE(store->arm_cut(cut).ok());
      }
    }
    ASSERT_TRUE(store->drop_cut(kBackup).ok());
    sequence_ = store->durable_sequence();
    store_id_ = store->store_id();
  }

  std::string pristine() { return folder_.path() + "/pristine"; }

  std::unique_ptr<Store> open_at(const std::string& path) {
    Store::Options opened = options();
    opened.folder = path;
    auto store = Store::open(opened);
    if (!store.ok()) return nullptr;
    return *std::move(store);
  }

  Outcome outcome_of(Store& store) {
    // What the node would tell the cluster of itself before it joins.
    if (store.store_id() != store_id_ || store.found().sequence < sequence_) {
      return Outcome::kEarlier;
    }
    bool error = false;
    for (const auto& [key, record] : records_) {
      const auto found = store.get(key);
      if (!found.ok()) {
        error = true;
      } else if (!found->has_value() || (*found)->value != record.value) {
        return Outcome::kWrongRecord;
      }
    }
    for (uint32_t slot = 0; slot < 16; ++slot) {
      const auto scan = store.scan(slot);
      SlotScan::Item item;
      SlotDigest digest;
      for (;;) {
        const auto more = scan->next(&item);
        if (!more.ok()) error = true;
        if (!more.ok() || !*more) break;
        const auto value = scan->value(item);
        if (!value.ok()) {
          error = true;
          break;
        }
        const Record read{std::string(item.key), *value, item.summary.version,
                          item.summary.tombstone};
        digest.add(read.key, read.view().summary());
      }
      // A replica whose digest is not that of its records would be agreed with.
      if (!error && digest != store.digest(slot)) return Outcome::kWrongDigest;
    }
    return error ? Outcome::kError : Outcome::kRight;
  }

  void flip_bits(bool of_manifest);

  std::map<std::string, Record> records_;
  uint64_t sequence_ = 0;
  std::string store_id_;
};

void FlippedStore::flip_bits(bool of_manifest) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(pristine())) {
    if (entry.is_regular_file() && entry.file_size() > 0 &&
        entry.path().filename().string().starts_with("MANIFEST") == of_manifest)
      files.push_back(std::filesystem::relative(entry.path(), pristine()));
  }
  std::sort(files.begin(), files.end());
  std::map<Outcome, int> outcomes;
  const uint64_t first = setting("SLUICE_SEED", setting("SLUICE_ROUNDS", 0) == 0 ? 1 : entropy());
  for (uint64_t seed = first; seed < first + setting("SLUICE_ROUNDS", 150); ++seed) {
    Random random(seed);
    const std::string copy = folder_.path() + "/flipped";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(pristine(), copy, std::filesystem::copy_options::recursive);
    const std::string file = files[random.below(files.size())];
    std::fstream stream(copy + "/" + file, std::ios::binary | std::ios::in | std::ios::out);
    const auto at =
        static_cast<std::streamoff>(random.below(std::filesystem::file_size(copy + "/" + file)));
    char byte = 0;
    stream.seekg(at).get(byte);
    stream.seekp(at).put(static_cast<char>(byte ^ (1 << random.below(8))));
    stream.close();
    const auto store = open_at(copy);
    const Outcome outcome = store == nullptr ? Outcome::kRefused : outcome_of(*store);
    ++outcomes[outcome];
    EXPECT_NE(outcome, Outcome::kWrongRecord)
        << "seed " << seed << ": byte " << at << " of " << file;
    EXPECT_NE(outcome, Outcome::kWrongDigest)
        << "seed " << seed << ": byte " << at << " of " << file;
  }
  std::printf("refused %d, read errors %d, earlier states %d, right %d, wrong %d\n",
              outcomes[Outcome::kRefused], outcomes[Outcome::kError], outcomes[Outcome::kEarlier],
              outcomes[Outcome::kRight],
              outcomes[Outcome::kWrongRecord] + outcomes[Outcome::kWrongDigest]);
  EXPECT_GT(outcomes[Outcome::kRefused] + outcomes[Outcome::kError] + outcomes[Outcome::kEarlier],
            0);
}

TEST_F(FlippedStore, NeverDeliversWhatWasNotWritten) { flip_bits(false); }

// Damage that RocksDB takes for a record that was being written when the power failed
// (manifest_end.h).
TEST_F(FlippedStore, NeverDeliversWhatWasNotWrittenByItsManifest) { flip_bits(true); }

}  // namespace
}  // namespace sluice
