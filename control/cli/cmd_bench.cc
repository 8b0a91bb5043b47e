// sluice bench link and sluice doctor: the machine and its wires, without a cluster.
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>

#include "base/arena.h"
#include "base/file.h"
#include "control/cli/command.h"
#include "control/cli/standard_streams.h"
#include "drivers/link_bench.h"
#include "drivers/registry.h"

namespace sluice {
namespace {

constexpr size_t kMaxLinkBuffers = 8192;
constexpr uint64_t kLowMemlock = uint64_t{512} << 20;
constexpr uint64_t kLowFiles = 4096;
constexpr uint64_t kLowDisk = uint64_t{10} << 30;

struct LinkArguments {
  std::string driver = "tcp";
  std::string listen;
  std::string connect;
  double seconds = 10;
  size_t block_bytes = kMaxBlockBytes;
  bool no_checksum = false;
  double idle_seconds = 60;
  LinkOptions link;
};

absl::StatusOr<LinkResult> run_link(const LinkArguments& arguments) {
  SLUICE_ASSIGN_OR_RETURN(const auto transport, make_transport(arguments.driver));
  SLUICE_ASSIGN_OR_RETURN(const auto arena,
                          Arena::create({.bytes = arguments.link.buffers * kBufferBytes,
                                         .pages = transport->limits().arena_pages}));
  if (!arguments.connect.empty()) {
    return run_link_sender(*transport, *arena, arguments.connect, arguments.seconds,
                           arguments.block_bytes, !arguments.no_checksum, arguments.link);
  }
  const auto say = [](std::string_view address) {
    print_stderr("sluice: listening on {}\n", address);
  };
  return run_link_receiver(*transport, *arena, arguments.listen, say,
                           static_cast<int64_t>(arguments.idle_seconds * 1e9), arguments.link);
}

Outcome bench_link(const LinkArguments& arguments) {
  if (arguments.listen.empty() == arguments.connect.empty()) {
    return usage_error(
        "say one of --listen ADDR (the receiver, first) and --connect ADDR (the sender)");
  }
  if (!(arguments.seconds > 0 && arguments.seconds <= 86400))
    return usage_error("--seconds: more than 0, at most 86400");
  if (!(arguments.idle_seconds > 0 && arguments.idle_seconds <= 86400)) {
    return usage_error("--idle: more than 0, at most 86400 seconds");
  }
  if (arguments.block_bytes < 1 || arguments.block_bytes > kMaxBlockBytes) {
    return usage_error("--block: 1 to {} bytes", kMaxBlockBytes);
  }
  const auto& [streams, buffers] = arguments.link;
  if (streams < 1 || streams > kMaxLinkStreams) {
    return usage_error("--streams: 1 to {}", kMaxLinkStreams);
  }
  if (buffers < std::max<size_t>(3, 2 * streams) || buffers > kMaxLinkBuffers) {
    return usage_error("--buffers: at least 3, at least 2 for each stream, at most {}",
                       kMaxLinkBuffers);
  }
  const auto result = run_link(arguments);
  if (!result.ok()) return failure(result.status());
  Outcome outcome;
  outcome.fields = {{"gbit_s", result->gbit_s},
                    {"seconds", result->seconds},
                    {"blocks", result->blocks},
                    {"bytes", result->bytes},
                    {"bad_blocks", result->bad_blocks},
                    {"cpu_s", result->cpu_s},
                    {"driver", arguments.driver},
                    {"streams", streams},
                    {"buffers", buffers}};
  outcome.text = fmt::format(
      "{:.2f} Gbit/s: {} blocks, {} in {}, {} of one core; {} bad blocks\n", result->gbit_s,
      human_count(result->blocks), human_bytes(static_cast<double>(result->bytes)),
      human_seconds(result->seconds), human_seconds(result->cpu_s), result->bad_blocks);
  if (result->bad_blocks > 0) {
    outcome.code = kExitDataBad;
    outcome.error =
        fmt::format("{} of {} blocks arrived damaged", result->bad_blocks, result->blocks);
  }
  return outcome;
}

struct MachineCheck {
  std::string name;
  bool good = true;
  std::string value;
  std::string fix;
};

std::string limit_text(rlim_t limit, bool bytes) {
  if (limit == RLIM_INFINITY) return "unlimited";
  return bytes ? human_bytes(static_cast<double>(limit)) : human_count(limit);
}

MachineCheck check_memlock() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool good = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= kLowMemlock;
  return {
      "locked memory", good, limit_text(limit.rlim_cur, true),
      good ? ""
           : "rdma pins the arena: raise it with 'ulimit -l unlimited' or LimitMEMLOCK=infinity"};
}

MachineCheck check_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const bool good = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= kLowFiles;
  return {"open files", good, limit_text(limit.rlim_cur, false),
          good ? ""
               : fmt::format("large stores open many files: raise it with 'ulimit -n {}'",
                             4 * kLowFiles)};
}

std::optional<uint64_t> meminfo(std::string_view name) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen("/proc/meminfo", "re"), std::fclose);
  if (file == nullptr) return std::nullopt;
  char line[256];
  while (std::fgets(line, sizeof line, file.get()) != nullptr) {
    unsigned long long value = 0;
    if (std::string_view(line).starts_with(name) &&
        std::sscanf(line + name.size(), ": %llu", &value) == 1)
      return value;
  }
  return std::nullopt;
}

MachineCheck check_huge_pages() {
  const uint64_t free = meminfo("HugePages_Free").value_or(0);
  const uint64_t kib = meminfo("Hugepagesize").value_or(2048);
  return {
      "huge pages", free > 0,
      fmt::format("{} free of {}", free, human_bytes(static_cast<double>(kib) * 1024)),
      free > 0
          ? ""
          : "rdma and dpdk run faster with some: 'echo 512 > /proc/sys/vm/nr_hugepages' as root"};
}

MachineCheck check_disk() {
  const auto free = free_bytes_at(".");
  if (!free.ok())
    return {"free disk here", false, "unknown", "statvfs failed on the current directory"};
  const bool good = *free >= kLowDisk;
  return {"free disk here", good, human_bytes(static_cast<double>(*free)),
          good ? ""
               : "an archive needs room for one copy of every record: free some, or keep archives "
                 "elsewhere"};
}

Outcome doctor() {
  Outcome outcome;
  outcome.fields["drivers"] = Json::array();
  bool any = false;
  for (const DriverReport& driver : examine_drivers()) {
    any = any || driver.usable;
    outcome.fields["drivers"].push_back({{"name", driver.name},
                                         {"usable", driver.usable},
                                         {"reason", driver.reason},
                                         {"fix", driver.fix}});
    outcome.text += fmt::format("driver {}: {}: {}\n", driver.name,
                                driver.usable ? "usable" : "not usable", driver.reason);
    if (!driver.fix.empty()) outcome.text += fmt::format("  to change that: {}\n", driver.fix);
  }
  outcome.fields["machine"] = Json::array();
  for (const MachineCheck& check :
       {check_memlock(), check_huge_pages(), check_files(), check_disk()}) {
    outcome.fields["machine"].push_back(
        {{"name", check.name}, {"good", check.good}, {"value", check.value}, {"fix", check.fix}});
    outcome.text += fmt::format("{}: {}\n", check.name, check.value);
    if (!check.fix.empty()) outcome.text += fmt::format("  {}\n", check.fix);
  }
  if (!any) {
    outcome.code = kExitFailed;
    outcome.error = "no driver works here; see what to change above";
  }
  return outcome;
}

}  // namespace

void register_bench(CLI::App& app, Invocation& invocation) {
  CLI::App* bench =
      add_command(app, "bench", "Measure", "sluice bench link --listen 127.0.0.1:7001");
  bench->require_subcommand(1, 1);
  const auto arguments = std::make_shared<LinkArguments>();
  CLI::App* link = add_command(
      *bench, "link",
      "One link flat out: each block's header and checksum are made anew, and every one is "
      "verified",
      "sluice bench link --driver tcp --listen 127.0.0.1:7001 &\n"
      "  sluice bench link --driver tcp --connect 127.0.0.1:7001 --seconds 5 --block 1048576\n"
      "\ngbit_s counts payload, in 10^9 bits a second; cpu_s are seconds of this side's thread.");
  link->add_option("--driver", arguments->driver, "Which wire (sluice doctor lists them)")
      ->capture_default_str();
  link->add_option("--listen", arguments->listen, "Receive here; port 0 takes a free one")
      ->type_name("ADDR");
  link->add_option("--connect", arguments->connect, "Send to this receiver")->type_name("ADDR");
  link->add_option("--seconds", arguments->seconds, "How long to send")->capture_default_str();
  link->add_option("--block", arguments->block_bytes, "Payload bytes of a block, at most 1048576")
      ->capture_default_str();
  link->add_flag("--no-checksum", arguments->no_checksum,
                 "Neither make nor check checksums of the payload");
  link->add_option("--streams", arguments->link.streams,
                   "Connections side by side, served by one thread; the same at both ends")
      ->capture_default_str();
  link->add_option("--buffers", arguments->link.buffers,
                   "Buffers of 1 MiB at this end: few stay in the processor's cache, more than it "
                   "has come from memory each time")
      ->capture_default_str();
  link->add_option("--idle", arguments->idle_seconds,
                   "A receiver gives up after so many seconds without a block")
      ->capture_default_str();
  link->callback([&invocation, arguments] {
    invocation.run = [arguments] { return bench_link(*arguments); };
  });
}

void register_doctor(CLI::App& app, Invocation& invocation) {
  CLI::App* command =
      add_command(app, "doctor", "What this machine can do with each driver, and what to change",
                  "sluice doctor");
  command->callback([&invocation] { invocation.run = doctor; });
}

}  // namespace sluice
