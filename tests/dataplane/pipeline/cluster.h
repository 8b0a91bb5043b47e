// A small cluster in one process, with real stores, archives and tcp streams, and what backups and
// restores of it should give, worked out from the records that the test wrote.
#ifndef SLUICE_TESTS_DATAPLANE_PIPELINE_CLUSTER_H_
#define SLUICE_TESTS_DATAPLANE_PIPELINE_CLUSTER_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/writer.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_source.h"
#include "dataplane/pipeline/restore.h"
#include "dataplane/pipeline/send_copies.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"
#include "drivers/fault.h"
#include "drivers/tcp/tcp.h"
#include "tests/dataplane/temp_folder.h"

namespace sluice {

inline constexpr int64_t kStartMs = 1'700'000'000'000;
inline constexpr char kBackup[] = "11111111-2222-4333-8444-555555555555";

inline uint64_t stamp_at(int64_t ms) {
  return Version::make_stamp(static_cast<uint64_t>(kStartMs + ms), 0);
}

struct ClusterOptions {
  size_t nodes = 3;
  size_t replicas = 2;
  uint32_t slot_bits = 4;
  std::string cluster = "aaaaaaaa-2222-4333-8444-555555555555";
  FaultOptions faults;  // of every node's transport
  bool with_faults = false;
  size_t arena_buffers = 128;
  uint64_t bytes_per_second = 0;  // of each node's bulk; 0: no limit
};

// The test's distribution table: slot s is held by nodes s, s+1, ... of the list.
class TestRouter final : public SlotRouter {
 public:
  uint32_t slot_bits() const override { return bits; }
  uint64_t epoch() const override {
    std::lock_guard lock(mutex);
    return current;
  }
  absl::StatusOr<SlotRoute> route(uint32_t slot) override;
  absl::StatusOr<std::shared_ptr<const SlotPlacement>> placement() override;
  void refresh() override;

  uint32_t bits = 4;
  size_t replicas = 2;
  mutable std::mutex mutex;
  uint64_t current = 1;
  uint64_t refreshed_to = 0;  // what refresh() finds, unless 0
  uint64_t refreshes = 0;
  std::vector<SlotRoute::Replica> nodes;
};

struct TestNode {
  std::string name;
  std::string folder;
  ManualClock clock{kStartMs};
  std::unique_ptr<Transport> plain;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<BulkLimit> limit;
  std::unique_ptr<Exchange> exchange;
  std::unique_ptr<Store> store;
  std::unique_ptr<WriteServer> writes;
  TestRouter router;
};

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options);
  ~Cluster();

  size_t size() const { return nodes.size(); }
  TestNode& node(size_t i) { return *nodes[i]; }
  std::vector<size_t> holders(uint32_t slot) const;
  uint32_t slots() const { return uint32_t{1} << options.slot_bits; }
  // Into all replicas of the key's slot, or into the given ones.
  void put(const Record& record);
  void put_at(size_t node, const Record& record);
  void put_all(const std::vector<Record>& records);  // into all replicas of each, in one go
  void put_all_at(size_t node, const std::vector<Record>& records);
  // The newest of all records written, by key.
  std::map<std::string, Record> newest() const;
  void serve_writes();
  // Arms and takes the cut on every node.
  void cut();

  const ClusterOptions options;
  TempFolder folder;
  std::vector<std::unique_ptr<TestNode>> nodes;
  std::vector<std::map<std::string, Record>> written;  // by node

 private:
  void remember(size_t node, const Record& record);
};

// Everything an archive holds, by key; each key may be there once.
std::map<std::string, Record> archived(const std::vector<std::string>& folders);

// Everything a store holds, by key.
std::map<std::string, Record> contents(Store& store);

Record make_record(std::string key, std::string value, int64_t ms, uint32_t node = 1);
Record make_tombstone(std::string key, int64_t ms, uint32_t node = 1);
std::string random_value(Random& random, size_t bytes);

// A backup of a cut cluster, as the control plane would drive it.
class Backup {
 public:
  Backup(Cluster& cluster, std::vector<size_t> targets, uint64_t attempt = 1);
  // Starts the consolidations; with it, options of every one of them may be changed first.
  void plan();
  void start();
  // Serves merges from every node. Part of send().
  void serve_merges();
  void serve_merges(size_t node);
  // Sends from every node to every target, and waits for all to be durable; the first error.
  absl::Status send();
  // Finishes the parts and commits the manifest in each folder.
  void commit();
  std::vector<std::string> folders() const;

  struct Target {
    size_t node = 0;
    std::string folder;
    ArchiveWriter::Options writer_options;
    std::unique_ptr<ArchiveWriter> writer;
    ConsolidationOptions options;
    std::unique_ptr<Consolidation> consolidation;
    std::vector<std::vector<uint32_t>> agreed;  // by source
    std::vector<std::vector<uint32_t>> divergent;
  };
  // What all nodes put on streams, wire and local ones.
  uint64_t stream_bytes() const;
  Cluster& cluster;
  const uint64_t attempt;
  std::vector<Target> targets;
  std::vector<std::shared_ptr<CutReader>> cuts;      // by node
  std::vector<std::shared_ptr<SlotSource>> sources;  // by node, where more than the cut is sent
  std::map<uint32_t, bool> is_agreed;
  Manifest manifest;
  // Of all send_copies() calls.
  SendCopiesResult sent;
  std::map<uint32_t, int> durable_events;
  std::function<void(SendCopiesOptions&)> adjust_send;
  const Cancellation* cancellation = nullptr;  // of send()
  std::function<void(MergeSourceOptions&)> adjust_merge;
  std::vector<std::unique_ptr<MergeSource>> merge_sources;  // by node
  int64_t merge_patience_ms = 60'000;

 private:
  std::mutex events_mutex_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_DATAPLANE_PIPELINE_CLUSTER_H_
