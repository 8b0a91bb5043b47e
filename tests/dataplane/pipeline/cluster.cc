#include "tests/dataplane/pipeline/cluster.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "base/status.h"

namespace sluice {

absl::StatusOr<SlotRoute> TestRouter::route(uint32_t slot) {
  std::lock_guard lock(mutex);
  SlotRoute route;
  route.epoch = current;
  for (size_t i = 0; i < replicas; ++i) route.replicas.push_back(nodes[(slot + i) % nodes.size()]);
  return route;
}

absl::StatusOr<std::shared_ptr<const SlotPlacement>> TestRouter::placement() {
  auto all = std::make_shared<SlotPlacement>();
  all->slot_bits = bits;
  std::map<std::set<std::string>, uint32_t> groups;
  for (uint32_t slot = 0; slot < uint32_t{1} << bits; ++slot) {
    absl::StatusOr<SlotRoute> one = route(slot);
    if (!one.ok()) return one.status();
    all->epoch = one->epoch;
    std::set<std::string> names;
    for (const auto& replica : one->replicas) names.insert(replica.node);
    const auto [group, added] = groups.try_emplace(names, static_cast<uint32_t>(groups.size()));
    if (added) all->groups.push_back(one->replicas);
    all->group_of.push_back(group->second);
  }
  return all;
}

void TestRouter::refresh() {
  std::lock_guard lock(mutex);
  ++refreshes;
  if (refreshed_to != 0) current = refreshed_to;
}

Cluster::Cluster(const ClusterOptions& cluster_options) : options(cluster_options) {
  written.resize(options.nodes);
  for (size_t i = 0; i < options.nodes; ++i) {
    auto node = std::make_unique<TestNode>();
    node->name = fmt::format("n{}", i + 1);
    node->folder = fmt::format("{}/{}", folder.path(), node->name);
    node->plain = std::make_unique<TcpTransport>();
    if (options.with_faults) {
      FaultOptions faults = options.faults;
      faults.seed = options.faults.seed + i * 1000;
      node->transport = std::make_unique<FaultTransport>(*node->plain, faults);
    } else {
      node->transport = std::make_unique<TcpTransport>();
    }
    Arena::Options arena;
    arena.bytes = options.arena_buffers * kBufferBytes;
    node->arena = *Arena::create(arena);
    Exchange::Options exchange;
    exchange.arena = node->arena.get();
    exchange.transport = node->transport.get();
    exchange.listen = "127.0.0.1:0";
    exchange.cluster = options.cluster;
    exchange.node = node->name;
    node->limit = std::make_unique<BulkLimit>(system_clock(), options.bytes_per_second);
    exchange.limit = options.bytes_per_second == 0 ? nullptr : node->limit.get();
    node->exchange = *Exchange::open(exchange);
    Store::Options store;
    store.folder = node->folder + "/store";
    store.cluster = options.cluster;
    store.node = node->name;
    store.node_number = static_cast<uint32_t>(i + 1);
    store.slot_bits = options.slot_bits;
    store.clock = &node->clock;
    store.memtable_bytes = size_t{8} << 20;
    absl::StatusOr<std::unique_ptr<Store>> opened = Store::open(store);
    EXPECT_TRUE(opened.ok()) << opened.status();
    node->store = *std::move(opened);
    nodes.push_back(std::move(node));
  }
  for (auto& node : nodes) {
    node->router.bits = options.slot_bits;
    node->router.replicas = options.replicas;
    for (auto& peer : nodes) node->router.nodes.push_back({peer->name, peer->exchange->address()});
  }
}

Cluster::~Cluster() {
  for (auto& node : nodes) node->writes.reset();
  for (auto& node : nodes) {
    node->exchange.reset();
    EXPECT_EQ(node->arena->unassigned(), node->arena->buffers()) << node->name << " lost buffers";
  }
}

std::vector<size_t> Cluster::holders(uint32_t slot) const {
  std::vector<size_t> list;
  for (size_t i = 0; i < options.replicas; ++i) list.push_back((slot + i) % nodes.size());
  return list;
}

void Cluster::put(const Record& record) {
  for (const size_t i : holders(slot_of(record.key, options.slot_bits))) put_at(i, record);
}

void Cluster::put_all(const std::vector<Record>& records) {
  std::vector<std::vector<RecordView>> of_node(nodes.size());
  for (const Record& record : records) {
    for (const size_t i : holders(slot_of(record.key, options.slot_bits))) {
      of_node[i].push_back(record.view());
      remember(i, record);
    }
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    absl::StatusOr<std::vector<ApplyResult>> result = nodes[i]->store->apply(of_node[i]);
    ASSERT_TRUE(result.ok()) << result.status();
  }
}

void Cluster::put_all_at(size_t i, const std::vector<Record>& records) {
  std::vector<RecordView> views;
  for (const Record& record : records) {
    views.push_back(record.view());
    remember(i, record);
  }
  absl::StatusOr<std::vector<ApplyResult>> result = nodes[i]->store->apply(views);
  ASSERT_TRUE(result.ok()) << result.status();
}

void Cluster::put_at(size_t i, const Record& record) {
  const RecordView view = record.view();
  absl::StatusOr<std::vector<ApplyResult>> result = nodes[i]->store->apply({&view, 1});
  ASSERT_TRUE(result.ok()) << result.status();
  remember(i, record);
}

void Cluster::remember(size_t i, const Record& record) {
  auto [at, added] = written[i].try_emplace(record.key, record);
  if (!added && at->second.view().summary() < record.view().summary()) at->second = record;
}

std::map<std::string, Record> Cluster::newest() const {
  std::map<std::string, Record> all;
  for (const auto& records : written) {
    for (const auto& [key, record] : records) {
      auto [at, added] = all.try_emplace(key, record);
      if (!added && at->second.view().summary() < record.view().summary()) at->second = record;
    }
  }
  return all;
}

void Cluster::serve_writes() {
  for (auto& node : nodes) {
    WriteServer::Options server;
    server.node = node->name;
    server.write_quorum = options.replicas / 2 + 1;
    node->writes = *WriteServer::start(*node->exchange, *node->store, node->router, server);
  }
}

void Cluster::cut() {
  const uint64_t at = stamp_at(1000);
  for (auto& node : nodes) {
    ASSERT_TRUE(node->store->arm_cut({kBackup, at, 1, false}).ok());
    node->clock.advance_ns(2'000'000'000);
    absl::StatusOr<bool> taken = node->store->take_due_cut();
    ASSERT_TRUE(taken.ok() && *taken);
  }
}

std::map<std::string, Record> archived(const std::vector<std::string>& folders) {
  std::map<std::string, Record> records;
  absl::StatusOr<std::unique_ptr<ArchiveReader>> archive = ArchiveReader::open(folders);
  EXPECT_TRUE(archive.ok()) << archive.status();
  if (!archive.ok()) return records;
  const auto arena = *Arena::create({.bytes = 2 * kBufferBytes});
  const auto pool = *arena->make_pool("test", 1);
  BlockBuffer buffer = pool->try_take();
  for (size_t part = 0; part < (*archive)->parts().size(); ++part) {
    for (const BlockLocation& location : (*archive)->parts()[part].blocks) {
      const absl::Status read = (*archive)->read_block(part, location, buffer.span());
      EXPECT_TRUE(read.ok()) << read;
      absl::StatusOr<BlockReader> reader = BlockReader::open(buffer.span());
      EXPECT_TRUE(reader.ok()) << reader.status();
      if (!reader.ok()) return records;
      BlockEntry entry;
      for (;;) {
        const absl::StatusOr<bool> more = reader->next(&entry);
        EXPECT_TRUE(more.ok()) << more.status();
        if (!more.ok() || !*more) break;
        const auto [at, added] = records.try_emplace(std::string(entry.key));
        EXPECT_EQ(added, entry.fragment_offset == 0) << entry.key;
        at->second.key = entry.key;
        at->second.version = entry.version;
        at->second.tombstone = entry.tombstone;
        at->second.value += entry.fragment;
      }
    }
  }
  return records;
}

std::map<std::string, Record> contents(Store& store) {
  std::map<std::string, Record> all;
  for (uint32_t slot = 0; slot < uint32_t{1} << store.slot_bits(); ++slot) {
    std::unique_ptr<SlotScan> scan = store.scan(slot);
    SlotScan::Item item;
    for (;;) {
      absl::StatusOr<bool> more = scan->next(&item);
      EXPECT_TRUE(more.ok()) << more.status();
      if (!more.ok() || !*more) break;
      absl::StatusOr<std::string> value = scan->value(item);
      EXPECT_TRUE(value.ok()) << value.status();
      if (!value.ok()) break;
      all[std::string(item.key)] = {std::string(item.key), *std::move(value), item.summary.version,
                                    item.summary.tombstone};
    }
  }
  return all;
}

Record make_record(std::string key, std::string value, int64_t ms, uint32_t node) {
  return {std::move(key), std::move(value), {stamp_at(ms), node}, false};
}

Record make_tombstone(std::string key, int64_t ms, uint32_t node) {
  return {std::move(key), "", {stamp_at(ms), node}, true};
}

std::string random_value(Random& random, size_t bytes) {
  std::string value(bytes, '\0');
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random.next();
    std::memcpy(value.data() + i, &word, std::min<size_t>(8, bytes - i));
  }
  return value;
}

Backup::Backup(Cluster& backed_up, std::vector<size_t> target_nodes, uint64_t number)
    : cluster(backed_up), attempt(number) {
  for (auto& node : cluster.nodes) {
    absl::StatusOr<std::shared_ptr<CutReader>> cut = node->store->open_cut(kBackup);
    EXPECT_TRUE(cut.ok()) << cut.status();
    cuts.push_back(*cut);
  }
  for (const size_t node : target_nodes) {
    Target target;
    target.node = node;
    target.folder = cluster.node(node).folder + "/archive";
    target.agreed.resize(cluster.size());
    target.divergent.resize(cluster.size());
    targets.push_back(std::move(target));
  }
  plan();
}

void Backup::plan() {
  for (uint32_t slot = 0; slot < cluster.slots(); ++slot) {
    Target& target = targets[slot % targets.size()];
    ConsolidationSlot planned;
    planned.slot = slot;
    const std::vector<size_t> holders = cluster.holders(slot);
    for (const size_t i : holders) {
      planned.senders.push_back({cluster.node(i).name, cuts[i]->digests()[slot]});
      planned.agreed &= planned.senders.back().digest == planned.senders.front().digest;
    }
    is_agreed[slot] = planned.agreed;
    if (planned.agreed) {
      const size_t chosen = slot / targets.size() % holders.size();
      planned.senders = {planned.senders[chosen]};
      target.agreed[holders[chosen]].push_back(slot);
    } else {
      for (const size_t i : holders) target.divergent[i].push_back(slot);
    }
    target.options.slots.push_back(std::move(planned));
  }
  for (Target& target : targets) {
    target.options.job = kBackup;
    target.options.attempt = attempt;
    target.options.slot_bits = cluster.options.slot_bits;
    target.options.node = cluster.node(target.node).name;
    target.options.find_source = [this](const std::string& name) -> absl::StatusOr<MergePeer> {
      for (const auto& node : cluster.nodes) {
        if (node->name == name) return MergePeer{node->exchange->address(), "start 1"};
      }
      return not_found("no node {}", name);
    };
    target.writer_options.folder = target.folder;
    target.writer_options.node = cluster.node(target.node).name;
    target.writer_options.identity.cluster = cluster.options.cluster;
    target.writer_options.identity.backup = kBackup;
    target.writer_options.identity.name = "test";
    target.writer_options.identity.slot_bits = cluster.options.slot_bits;
    target.writer_options.identity.cut = stamp_at(1000);
    target.writer_options.identity.table_epoch = 1;
    target.writer_options.segment_bytes = size_t{16} << 20;
  }
}

void Backup::start() {
  for (Target& target : targets) {
    absl::StatusOr<std::unique_ptr<ArchiveWriter>> writer =
        ArchiveWriter::open(target.writer_options);
    ASSERT_TRUE(writer.ok()) << writer.status();
    target.writer = *std::move(writer);
    absl::StatusOr<std::unique_ptr<Consolidation>> consolidation =
        Consolidation::start(*cluster.node(target.node).exchange, *target.writer, target.options);
    ASSERT_TRUE(consolidation.ok()) << consolidation.status();
    target.consolidation = *std::move(consolidation);
  }
}

void Backup::serve_merges() {
  for (size_t node = 0; node < cluster.size(); ++node) serve_merges(node);
}

void Backup::serve_merges(size_t node) {
  MergeSourceOptions options;
  options.job = kBackup;
  options.attempt = attempt;
  options.slot_bits = cluster.options.slot_bits;
  for (const Target& target : targets) {
    if (target.divergent[node].empty()) continue;
    options.slots[cluster.node(target.node).name] = target.divergent[node];
  }
  options.on_slot_durable = [this](uint32_t slot) {
    const std::lock_guard lock(events_mutex_);
    ++durable_events[slot];
  };
  if (adjust_merge) adjust_merge(options);
  merge_sources.resize(cluster.size());
  merge_sources[node].reset();
  auto source = MergeSource::start(*cluster.node(node).exchange, cuts[node], options);
  ASSERT_TRUE(source.ok()) << source.status();
  merge_sources[node] = *std::move(source);
}

uint64_t Backup::stream_bytes() const {
  uint64_t bytes = 0;
  for (const auto& node : cluster.nodes) {
    bytes += node->exchange->counters().sent_bytes + node->exchange->local_bytes();
  }
  return bytes;
}

absl::Status Backup::send() {
  std::vector<std::thread> threads;
  std::mutex& mutex = events_mutex_;
  absl::Status first;
  if (merge_sources.empty()) serve_merges();
  for (Target& target : targets) {
    for (size_t source = 0; source < cluster.size(); ++source) {
      threads.emplace_back([&, source] {
        SendCopiesOptions send_options;
        send_options.job = kBackup;
        send_options.attempt = attempt;
        send_options.target = cluster.node(target.node).name;
        send_options.address = cluster.node(target.node).exchange->address();
        send_options.slot_bits = cluster.options.slot_bits;
        send_options.agreed = target.agreed[source];
        send_options.on_slot_durable = [&](uint32_t slot) {
          std::lock_guard lock(mutex);
          ++durable_events[slot];
        };
        if (adjust_send) adjust_send(send_options);
        absl::StatusOr<SendCopiesResult> result = send_copies(
            *cluster.node(source).exchange, sources.empty() ? *cuts[source] : *sources[source],
            send_options, cancellation);
        std::lock_guard lock(mutex);
        if (!result.ok()) {
          if (first.ok()) first = result.status();
          return;
        }
        sent.slots += result->slots;
        sent.slots_skipped += result->slots_skipped;
        sent.slots_repeated += result->slots_repeated;
        sent.blocks += result->blocks;
        sent.records += result->records;
        sent.record_bytes += result->record_bytes;
        sent.wire_bytes += result->wire_bytes;
        sent.reconnects += result->reconnects;
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (!first.ok()) return first;
  for (const auto& source : merge_sources) {
    SLUICE_RETURN_IF_ERROR(source->wait_durable(merge_patience_ms));
  }
  return first;
}

void Backup::commit() {
  manifest.identity = targets.front().writer_options.identity;
  for (Target& target : targets) {
    ASSERT_TRUE(target.consolidation->wait(10'000).ok()) << target.consolidation->wait(0);
    absl::StatusOr<PartManifest> part = target.consolidation->finish();
    ASSERT_TRUE(part.ok()) << part.status();
    manifest.parts.push_back(*std::move(part));
    manifest.newest_stamp = std::max(manifest.newest_stamp, target.writer->newest_stamp());
  }
  for (Target& target : targets) {
    const absl::Status status = target.writer->commit(manifest);
    ASSERT_TRUE(status.ok()) << status;
  }
}

std::vector<std::string> Backup::folders() const {
  std::vector<std::string> list;
  for (const Target& target : targets) list.push_back(target.folder);
  return list;
}

}  // namespace sluice
