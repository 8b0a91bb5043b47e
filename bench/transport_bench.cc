// One tcp connection on loopback, each end in a thread of its own: blocks of the given size, with
// checksums made and verified (the link benchmark), by sendfile and by the gathering write.
#include <benchmark/benchmark.h>

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "drivers/link_bench.h"
#include "drivers/tcp/tcp.h"

namespace sluice {
namespace {

TcpOptions options_for(int64_t send_by) {
  TcpOptions options;
  options.send_by = send_by == 0 ? TcpOptions::SendBy::kSendfile : TcpOptions::SendBy::kWrite;
  return options;
}

std::unique_ptr<Arena> make_arena() {
  Arena::Options options;
  options.bytes = 40 * options.buffer_bytes;
  return std::move(*Arena::create(options));
}

void BM_Link(benchmark::State& state) {
  TcpTransport transport(options_for(state.range(1)));
  auto arena = make_arena();
  auto other_arena = make_arena();
  double bytes = 0;
  double cpu = 0;
  for (auto step : state) {
    std::promise<std::string> bound;
    std::thread receiver([&] {
      auto result = run_link_receiver(
          transport, *other_arena, "127.0.0.1:0",
          [&](std::string_view address) { bound.set_value(std::string(address)); }, 5'000'000'000);
      if (result.ok()) cpu += result->cpu_s;
    });
    auto result = run_link_sender(transport, *arena, bound.get_future().get(), 1.0,
                                  static_cast<size_t>(state.range(0)), state.range(2) != 0);
    receiver.join();
    if (!result.ok() || result->bad_blocks > 0) {
      state.SkipWithError("the link failed");
      return;
    }
    state.SetIterationTime(result->seconds);
    bytes += static_cast<double>(result->bytes);
    cpu += result->cpu_s;
  }
  state.counters["gbit"] = benchmark::Counter(bytes * 8e-9, benchmark::Counter::kIsRate);
  state.counters["cpu_s_per_GB"] = cpu / (bytes * 1e-9);
}
BENCHMARK(BM_Link)
    ->ArgNames({"bytes", "write", "checksum"})
    ->ArgsProduct({{4096, 65536, 1 << 20}, {0, 1}, {1}})
    ->Args({1 << 20, 0, 0})
    ->Args({1 << 20, 1, 0})
    ->Iterations(1)
    ->UseManualTime();

}  // namespace
}  // namespace sluice
