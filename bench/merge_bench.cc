// A target's work on a backup, from streams over tcp on loopback to an archive whose writes go
// nowhere: agreed slots, which one source sends and the target keeps as they are, and divergent
// ones, of which all three send summaries and the target decides. One in twenty of their records is
// missing at one source and stale at another. Bytes are those of the result; both ends' time is in
// it.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/arena.h"
#include "base/random.h"
#include "bench/memory_cut.h"
#include "dataplane/archive/writer.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_source.h"
#include "dataplane/pipeline/send_copies.h"
#include "dataplane/stream/exchange.h"
#include "drivers/tcp/tcp.h"

namespace sluice {
namespace {

constexpr uint32_t kSlotBits = 4;
constexpr uint32_t kSlots = 1 << kSlotBits;
constexpr size_t kBytes = size_t{64} << 20;
constexpr size_t kSources = 3;
constexpr size_t kDifferent = 20;
constexpr size_t kBuffers = 64;
constexpr int64_t kPatienceMs = 60'000;

void check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

// Source 0 has everything; where they differ, one record in kDifferent is missing at source 1, and
// older at source 2.
std::shared_ptr<MemoryCut> cut_of(size_t source, size_t value_bytes, bool divergent) {
  std::vector<MemorySlot> slots;
  for (uint32_t slot = 0; slot < kSlots; ++slot) {
    slots.push_back(MemorySlot::make(slot, kSlotBits, kBytes / kSlots, value_bytes));
    if (!divergent || source == 0) continue;
    auto& records = slots.back().records;
    for (size_t i = 0; source == 2 && i < records.size(); i += kDifferent) {
      --records[i].second.version.stamp;
    }
    size_t at = 0;
    if (source == 1) std::erase_if(records, [&](const auto&) { return at++ % kDifferent == 0; });
  }
  return std::make_shared<MemoryCut>(std::move(slots));
}

struct Node {
  explicit Node(const std::string& node_name, const std::string& cluster) : name(node_name) {
    arena = *Arena::create({.bytes = kBuffers * kBufferBytes});
    Exchange::Options options;
    options.arena = arena.get();
    options.transport = &transport;
    options.listen = "127.0.0.1:0";
    options.cluster = cluster;
    options.node = name;
    exchange = *Exchange::open(options);
  }
  const std::string name;
  TcpTransport transport;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Exchange> exchange;
};

struct World {
  World(size_t value_bytes, bool are_divergent)
      : divergent(are_divergent), cluster(make_uuid()), target("target", cluster) {
    for (size_t i = 0; i < kSources; ++i) {
      sources.push_back(std::make_unique<Node>(fmt::format("source-{}", i), cluster));
      cuts.push_back(cut_of(i, value_bytes, divergent));
    }
  }

  ConsolidationOptions plan(const std::string& job) const {
    ConsolidationOptions options;
    options.job = job;
    options.attempt = 1;
    options.slot_bits = kSlotBits;
    options.find_source = [this](const std::string& name) -> absl::StatusOr<MergePeer> {
      for (const auto& source : sources) {
        if (source->name == name) return MergePeer{source->exchange->address(), "start 1"};
      }
      return not_found("no source {}", name);
    };
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      ConsolidationSlot planned{.slot = slot, .agreed = !divergent, .senders = {}};
      for (size_t i = 0; i < kSources; ++i) {
        if (divergent || i == slot % kSources)
          planned.senders.push_back({sources[i]->name, cuts[i]->digests()[slot]});
      }
      options.slots.push_back(std::move(planned));
    }
    return options;
  }

  void send(size_t source, const std::string& job) {
    SendCopiesOptions options;
    options.job = job;
    options.attempt = 1;
    options.target = target.name;
    options.address = target.exchange->address();
    options.slot_bits = kSlotBits;
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      if (slot % kSources == source) options.agreed.push_back(slot);
    }
    check(send_copies(*sources[source]->exchange, *cuts[source], options).status());
  }

  std::unique_ptr<MergeSource> serve(size_t source, const std::string& job) {
    MergeSourceOptions options;
    options.job = job;
    options.attempt = 1;
    options.slot_bits = kSlotBits;
    for (uint32_t slot = 0; slot < kSlots; ++slot) options.slots[target.name].push_back(slot);
    auto started = MergeSource::start(*sources[source]->exchange, cuts[source], options);
    check(started.status());
    return *std::move(started);
  }

  // One backup; returns the bytes of records in it.
  uint64_t back_up(const std::string& folder) {
    ArchiveWriter::Options options;
    options.folder = folder;
    options.node = target.name;
    options.identity.cluster = cluster;
    options.identity.backup = make_uuid();
    options.identity.name = "bench";
    options.identity.slot_bits = kSlotBits;
    options.identity.cut = Version::make_stamp(1'800'000'000'000, 0);
    options.identity.table_epoch = 1;
    options.write = [](int, const void*, size_t bytes, off_t) {
      return static_cast<ssize_t>(bytes);
    };
    auto writer = ArchiveWriter::open(options);
    check(writer.status());
    std::vector<std::unique_ptr<MergeSource>> serving;
    for (size_t i = 0; divergent && i < kSources; ++i)
      serving.push_back(serve(i, options.identity.backup));
    auto consolidation =
        Consolidation::start(*target.exchange, **writer, plan(options.identity.backup));
    check(consolidation.status());
    std::vector<std::thread> threads;
    for (size_t i = 0; !divergent && i < kSources; ++i)
      threads.emplace_back([&, i] { send(i, options.identity.backup); });
    for (std::thread& thread : threads) thread.join();
    check((*consolidation)->wait(kPatienceMs));
    const Consolidation::Progress progress = (*consolidation)->progress();
    if (divergent == (progress.divergence.missing == 0)) std::abort();
    return progress.record_bytes;
  }

  const bool divergent;
  const std::string cluster;
  Node target;
  std::vector<std::unique_ptr<Node>> sources;
  std::vector<std::shared_ptr<MemoryCut>> cuts;
};

// Arguments: bytes of a value; whether the copies differ.
void consolidate(benchmark::State& state) {
  World world(static_cast<size_t>(state.range(0)), state.range(1) != 0);
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("sluice-merge-" + make_uuid());
  uint64_t bytes = 0;
  for (auto _ : state) {
    bytes += world.back_up(folder.string());
    state.PauseTiming();
    std::filesystem::remove_all(folder);
    state.ResumeTiming();
  }
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
}
BENCHMARK(consolidate)
    ->ArgNames({"value", "merge"})
    ->ArgsProduct({{100, 4096, 65536}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace sluice
