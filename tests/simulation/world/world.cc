#include "tests/simulation/world/world.h"

#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <thread>
#include <utility>

#include "base/status.h"
#include "control/node/arena_budget.h"
#include "control/node/bootstrap.h"
#include "tests/simulation/rocksdb_disk.h"

namespace sluice::simulation {
namespace {

constexpr size_t kMostNodes = 5;
constexpr int64_t kStartMs = 60'000;
constexpr uint64_t kFirstCopy = 100;  // number of its disk

uint64_t derive(uint64_t seed, uint64_t stream) { return Random::mix(seed ^ (stream << 56)); }

}  // namespace

void sleep_ms(int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

void spawn(std::function<void()> body) { std::thread(std::move(body)).detach(); }

bool wait_until(int64_t timeout_ms, const std::function<bool()>& done, int64_t step_ms) {
  const int64_t end = now_ns() + timeout_ms * 1'000'000;
  while (!done()) {
    if (now_ns() >= end) return false;
    sleep_ms(step_ms);
  }
  return true;
}

std::string host_at(std::string_view address) {
  return std::string(address.substr(0, address.find(':')));
}

RestoreRequest restore_of(std::string backup, std::string source_cluster) {
  RestoreRequest request;
  request.backup = std::move(backup);
  request.source_cluster = std::move(source_cluster);
  return request;
}

void require_ok(const absl::Status& status, std::string_view what) {
  if (!status.ok()) fail(fmt::format("{}: {}", what, status.ToString()));
}

// --- Host ---

Host::Host(World& world, std::string name, std::string node, std::string cluster, uint64_t number)
    : world_(world),
      name_(std::move(name)),
      node_(std::move(node)),
      cluster_(std::move(cluster)),
      has_fixed_port_(world.random_.chance(0.5)),
      disk_(number),
      mount_(simulation::mount(name_, disk_)) {}

NodeOptions Host::options(bool accept_data_loss) const {
  NodeOptions options;
  NodeConfig& config = options.config;
  config.name = node_;
  config.cluster = World::url_of(cluster_);
  config.data_folder = data_folder();
  config.archive_folder = archive_folder();
  config.control_listen = name_ + (has_fixed_port_ ? ":7000" : ":0");
  config.data_listen = name_;
  config.driver = "sim";
  config.weight = 1.0;
  config.lease_ms = world_.block_world(cluster_).lease_ms;
  config.arena_bytes = recommended_arena_bytes(kMostNodes);
  config.memtable_bytes = size_t{1} << 20;
  config.block_cache_bytes = size_t{1} << 20;
  config.accept_data_loss = accept_data_loss;
  options.transport = world_.transport_of(name_);
  options.serve = world_.calls_.server_factory();
  options.open_block = world_.opener(block_faults);
  // What is polled for costs more here than what happens.
  options.ticks = {.timer_ms = 100, .streams_ms = 400, .requests_ms = 1000};
  return options;
}

void Host::start(bool accept_data_loss) {
  if (running()) fail(fmt::format("{}: started twice", name_));
  processes_.emplace_back();
  process_ = &processes_.back();
  NodeProcess& state = *process_;
  state.process = &Process::make(fmt::format("{}#{}", name_, processes_.size()));
  state.process->set_wall_offset_ns(wall_offset_ns);
  state.accepts_data_loss = accept_data_loss;
  world_.fabric_.restart(name_);
  state.process->start("main", [this, &state, accept_data_loss] { run(state, accept_data_loss); });
}

void Host::run(NodeProcess& state, bool accept_data_loss) {
  const auto env = make_rocksdb_env();
  const auto dialer = world_.calls_.make_dialer(name_);
  const auto block = make_sim_block(*world_.blocks_.at(cluster_), block_faults);
  NodeOptions with = options(accept_data_loss);
  with.env = env.get();
  with.dialer = dialer.get();
  with.block = block.get();
  with.serve = [&state, serve = with.serve](const std::string& listen,
                                            const NodeServices& services) {
    auto server = serve(listen, services);
    if (server.ok()) state.control_address = (*server)->address();
    return server;
  };
  auto node = Node::start(with);
  state.status = node.status();
  state.started = true;
  if (node.ok()) {
    state.node = node->get();
    // As run_node().
    for (int tick = 0; !state.stop; ++tick) {
      sleep_ms(250);
      if (tick % 4 != 0) continue;
      const absl::Status status = (*node)->status();
      if (!absl::IsAborted(status) && !absl::IsAlreadyExists(status) &&
          !absl::IsInvalidArgument(status)) {
        continue;
      }
      state.status = status;
      break;
    }
    state.node = nullptr;
    (*node)->stop();
    node->reset();
  }
  trace(fmt::format("{} ends: {}", name_, state.status.ToString()));
  state.ended = true;
}

absl::Status Host::status() const {
  return process_ == nullptr ? absl::OkStatus() : process_->status;
}

void Host::stop() {
  if (!running()) return;
  process_->stop = true;
  NodeProcess& state = *process_;
  if (!wait_until(
          120'000, [&] { return state.ended; }, 50)) {
    fail(fmt::format("{} does not stop within 2 min\n{}", name_, describe_threads()));
  }
}

void Host::crash(bool power) {
  const NoSwitch whole;
  if (running()) {
    NodeProcess& state = *process_;
    state.process->crash();
    state.node = nullptr;
    state.ended = true;
    state.status = aborted("crashed");
    // Not on this thread: it may be one of the process.
    at(now_ns(), [this, address = state.control_address, power] {
      world_.fabric_.crash(name_);
      world_.calls_.crash_host(name_, address, power);
    });
  }
  if (power) disk_.lose_power(world_.random_);
  trace(fmt::format("{} {}", name_, power ? "loses its power" : "crashes"));
}

void Host::give_address_to(const Host& other) {
  if (process_ == nullptr || !other.running() || &other == this) return;
  // Behind what the crash does.
  at(now_ns(), [this, address = process_->control_address, by = other.process_->control_address] {
    if (!address.empty()) world_.calls_.take_over(address, by);
  });
}

// --- World ---

SimOptions World::fabric_options(SimTime* time) {
  SimOptions options;
  options.delay_ns = 50'000;
  options.jitter_ns = 50'000;
  options.time = time;
  return options;
}

namespace {

// Nothing of it is preempted: only one thread runs at a time.
class TraceSink final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    trace(fmt::format("[{}] {}", spdlog::level::to_string_view(message.level), message.payload));
  }
  void flush_() override {}
};

}  // namespace

void trace_logs() {
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("simulation", std::make_shared<TraceSink>()));
}

World::World(uint64_t seed)
    : random_(derive(seed, 1)),
      fabric_(derive(seed, 2), fabric_options(&time_)),
      calls_(derive(seed, 3)) {}

void World::make_cluster(const std::string& name, const ClusterShapeOptions& shape) {
  blocks_.emplace(name, std::make_unique<BlockWorld>(derive(random_.next(), 4)));
  block_world(name).lease_ms = shape.lease_ms;
  require_ok(sluice::make_cluster(block(name), {shape.slot_bits, shape.replicas, 42, {}}).status(),
             "making a cluster");
  for (size_t i = 0; i < shape.nodes; ++i) {
    const std::string host = fmt::format("{}{}", name, i + 1);
    hosts_.emplace_back(*this, host, host, name, hosts_.size() + 1).start();
  }
  require_ok(publish_first_table(block(name), shape.nodes, kStartMs), "the first table");
  for (Host* host : hosts(name)) {
    if (!wait_until(kStartMs, [&] { return host->serving(); })) {
      fail(fmt::format("{} does not serve: {}", host->name(), host->status().ToString()));
    }
  }
}

std::vector<Host*> World::hosts(std::string_view cluster) {
  std::vector<Host*> found;
  for (Host& host : hosts_) {
    if (host.cluster() == cluster) found.push_back(&host);
  }
  return found;
}

Host& World::host(std::string_view name) {
  for (std::deque<Host>* const hosts : {&hosts_, &copies_}) {
    for (Host& host : *hosts) {
      if (host.name() == name) return host;
    }
  }
  fail(fmt::format("there is no host {}", name));
}

Host& World::make_copy(const Host& host, const Disk::Tree& data) {
  const NoSwitch whole;
  const size_t number = copies_.size() + 1;
  Host& copy = copies_.emplace_back(*this, fmt::format("{}copy{}", host.name(), number),
                                    host.node(), host.cluster(), kFirstCopy + number);
  copy.disk().restore("/data", data);
  return copy;
}

TransportFactory World::transport_of(const std::string& name) {
  return [this, name](std::string_view) {
    return absl::StatusOr<std::unique_ptr<Transport>>(
        std::make_unique<SimTransport>(fabric_, name));
  };
}

ClusterBlockOpener World::opener(const BlockFaults& faults) {
  return [this, &faults](std::string_view url) -> absl::StatusOr<std::unique_ptr<ClusterBlock>> {
    for (const auto& [cluster, world] : blocks_) {
      if (url == url_of(cluster)) return make_sim_block(*world, faults);
    }
    return not_found("no cluster at {}", url);
  };
}

std::optional<BackupHead> World::newest_backup(const std::string& cluster, std::string_view name) {
  const NoSwitch whole;
  std::optional<BackupHead> newest;
  Revision newest_revision = 0;
  for (const auto& [key, heads] : block_world(cluster).kept) {
    const auto& [revision, text] = *heads.rbegin();
    auto head = decode_backup_head(key, text);
    if (!head.ok() || head->name != name || revision < newest_revision) continue;
    newest_revision = revision;
    newest = *std::move(head);
  }
  return newest;
}

Process& World::start_client(const std::string& name, const std::string& cluster, ClientBody body,
                             bool* ended) {
  Process& process = Process::make(name);
  process.start("main", [this, name, cluster, body = std::move(body), ended] {
    {
      const auto dialer = calls_.make_dialer(name);
      ClientOptions options;
      options.dialer = dialer.get();
      options.transport = transport_of(name);
      options.open_block = opener(client_block_faults);
      auto client = ClusterClient::open(url_of(cluster), options);
      while (absl::IsUnavailable(client.status())) {
        sleep_ms(500);
        client = ClusterClient::open(url_of(cluster), options);
      }
      require_ok(client.status(), "opening a client");
      body(**client);
    }
    if (ended != nullptr) *ended = true;
  });
  return process;
}

void World::crash_client(Process& process) {
  const NoSwitch whole;
  process.crash();
  at(now_ns(), [this, name = process.name()] {
    fabric_.crash(name);
    calls_.crash_host(name, {}, /*dead=*/false);
  });
  trace(fmt::format("{} crashes", process.name()));
}

void World::with_client(const std::string& cluster, const ClientBody& body) {
  bool ended = false;
  start_client(fmt::format("client{}", ++clients_), cluster, body, &ended);
  while (!ended) sleep_ms(5);
}

void World::partition(const std::string& a, const std::string& b) {
  fabric_.partition(a, b);
  calls_.block(a, b);
  calls_.block(b, a);
  partitions_.emplace_back(a, b);
}

void World::heal_partitions() {
  for (const auto& [a, b] : partitions_) fabric_.heal(a, b);
  partitions_.clear();
  calls_.unblock_all();
}

}  // namespace sluice::simulation
