#include "control/node/node.h"

#include <signal.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "base/defect.h"
#include "base/descriptor.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"
#include "control/backup/backup_job.h"
#include "control/backup/backup_manager.h"
#include "control/backup/backup_roles.h"
#include "control/backup/local_archives.h"
#include "control/job/job_fence.h"
#include "control/membership/membership.h"
#include "control/node/arena_budget.h"
#include "control/node/grpc_server.h"
#include "control/node/node_rates.h"
#include "control/peers/directory.h"
#include "control/peers/directory_router.h"
#include "control/peers/node_context.h"
#include "control/peers/peers.h"
#include "control/peers/rpc.h"
#include "control/records/clock_monitor.h"
#include "control/records/cluster_clock.h"
#include "control/service/guarded_services.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/store/store.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

namespace {

// How often it is looked whether a full disk has room again.
constexpr int64_t kResumeIntervalNs = 1'000'000'000;
constexpr int64_t kRecallMs = 1'000;
// Of each call to the cluster block while the node stops.
constexpr int64_t kLastCallMs = 1'000;

class NodeImpl final : public Node {
 public:
  explicit NodeImpl(const NodeOptions& options)
      : options_(options), clock_(options.clock == nullptr ? system_clock() : *options.clock) {}
  ~NodeImpl() override { stop(); }

  // Everything that it needs; then joins and begins to serve.
  absl::Status open();
  absl::Status begin();

  const std::string& name() const override { return options_.config.name; }
  const std::string& control_address() const override { return control_address_; }
  const std::string& data_address() const override { return data_address_; }
  bool serving() const override { return serving_; }
  bool wait_until_serving(int64_t timeout_ms) override {
    MutexLock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                             [this] { return serving_.load(); });
  }
  absl::Status status() const override {
    {
      const MutexLock lock(mutex_);
      if (!unfit_.ok()) return unfit_;
    }
    return membership_ == nullptr ? absl::OkStatus() : membership_->status();
  }
  void stop() override;

 private:
  absl::Status open_store();
  absl::Status open_exchange();
  absl::Status open_server();
  absl::Status join();
  uint64_t ask_peers_of_store();
  void keep_time();
  void look_for_table();
  void look_after_disk();

  const NodeOptions options_;
  Clock& clock_;
  std::string control_address_;
  std::string data_address_;

  // In the order in which they are made; they go the other way round.
  std::unique_ptr<ClusterBlock> owned_block_;
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<ClusterClock> cluster_clock_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<NodeRates> rates_;
  std::unique_ptr<BulkLimit> limit_;  // null: none
  std::unique_ptr<Exchange> exchange_;
  std::unique_ptr<Peers> peers_;
  std::unique_ptr<DirectoryRouter> router_;
  NodeContext context_;
  LocalArchives archives_{context_};
  std::unique_ptr<NodeTrees> trees_;
  std::unique_ptr<JobFence> fence_;
  std::unique_ptr<ClockMonitor> clock_monitor_;
  std::unique_ptr<WriteServer> write_server_;
  std::unique_ptr<BackupRoles> roles_;
  std::unique_ptr<BackupManager> manager_;
  std::unique_ptr<Guarded<PeerService>> peer_service_;
  std::unique_ptr<Guarded<ServingService>> serving_service_;
  std::unique_ptr<CallServer> server_;
  std::unique_ptr<Membership> membership_;

  mutable Mutex mutex_;
  // Why it does not serve the table that it found.
  absl::Status unfit_ SLUICE_GUARDED_BY(mutex_);
  Condition changed_;
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  bool stopped_ SLUICE_GUARDED_BY(mutex_) = false;
  std::atomic<bool> serving_{false};
  std::atomic<bool> confirmed_{false};
  std::thread timer_;
  // Of that thread.
  bool takes_no_writes_ = false;
  int64_t resume_ns_ = 0;
};

absl::Status NodeImpl::open_store() {
  Store::Options store;
  store.folder = options_.config.data_folder;
  store.cluster = directory_->cluster().uuid;
  store.node = options_.config.name;
  store.slot_bits = directory_->cluster().slot_bits;
  store.memtable_bytes = options_.config.memtable_bytes;
  store.block_cache_bytes = options_.config.block_cache_bytes;
  cluster_clock_ =
      std::make_unique<ClusterClock>(clock_, directory_->cluster().max_clock_offset_ms);
  store.clock = cluster_clock_.get();
  store.env = options_.env;
  SLUICE_RETURN_IF_ERROR(make_folders(store.folder));
  SLUICE_RETURN_IF_ERROR(make_folders(options_.config.archive_folder));
  SLUICE_ASSIGN_OR_RETURN(store_, Store::open(store));
  SLUICE_ASSIGN_OR_RETURN(
      trees_, NodeTrees::open(options_.config.trees, store.folder + "/trees", store.slot_bits));
  return absl::OkStatus();
}

absl::Status NodeImpl::open_exchange() {
  const TransportFactory transport = options_.transport ? options_.transport : make_transport;
  SLUICE_ASSIGN_OR_RETURN(transport_, transport(options_.config.driver));
  SLUICE_ASSIGN_OR_RETURN(arena_, Arena::create({.bytes = options_.config.arena_bytes,
                                                 .pages = transport_->limits().arena_pages}));
  Exchange::Options exchange;
  exchange.arena = arena_.get();
  exchange.transport = transport_.get();
  exchange.clock = &clock_;
  exchange.timer_ms = options_.ticks.streams_ms;
  exchange.listen = options_.config.data_listen;
  exchange.cluster = directory_->cluster().uuid;
  exchange.node = options_.config.name;
  exchange.incarnation = store_->incarnation();
  exchange.gate = [this] { return context_.check_ready(); };
  if (options_.config.bytes_per_second > 0) {
    limit_ = std::make_unique<BulkLimit>(clock_, options_.config.bytes_per_second);
    exchange.limit = limit_.get();
  }
  auto opened = Exchange::open(exchange);
  if (!opened.ok()) {
    return with_context(opened.status(), fmt::format("data_listen {}", exchange.listen));
  }
  exchange_ = *std::move(opened);
  data_address_ = exchange_->address();
  return absl::OkStatus();
}

absl::Status NodeImpl::open_server() {
  peer_service_ = std::make_unique<Guarded<PeerService>>(context_, *roles_, *manager_);
  serving_service_ = std::make_unique<Guarded<ServingService>>(context_, *manager_);
  const CallServerFactory serve = options_.serve ? options_.serve : start_grpc_server;
  SLUICE_ASSIGN_OR_RETURN(
      server_, serve(options_.config.control_listen, {*peer_service_, *serving_service_}));
  control_address_ = server_->address();
  return absl::OkStatus();
}

absl::Status NodeImpl::join() {
  Membership::Options joining;
  NodeInfo& info = joining.node;
  info.name = options_.config.name;
  info.rack = options_.config.rack;
  info.control_address = control_address_;
  info.data_address = data_address_;
  info.driver = options_.config.driver;
  info.store_id = store_->store_id();
  info.incarnation = store_->incarnation();
  info.archive_folder = options_.config.archive_folder;
  for (const TreeSettings& tree : options_.config.trees) info.trees.push_back(tree.name);
  info.weight_explicit = options_.config.weight.has_value();
  if (info.weight_explicit) {
    info.weight = *options_.config.weight;
  } else {
    SLUICE_RETURN_IF_ERROR(rates_->probe(data_address_));
    joining.rates = [this]() -> std::optional<MeasuredRates> {
      // Earlier averages are known once it has joined.
      if (!confirmed_) return std::nullopt;
      rates_->look_at(*exchange_);
      return rates_->rates();
    };
  }
  info.rates = rates_->rates();
  joining.found = {store_->found().joined, store_->found().joining, store_->found().sequence,
                   store_->lock_identity(), store_->clock().now()};
  joining.seen_sequence = [this] { return ask_peers_of_store(); };
  // What opening wrote counts only once the join is confirmed.
  joining.progress = [this]() -> Membership::Options::Progress {
    if (!confirmed_) return {};
    return {store_->durable_sequence(), store_->clock().ceiling()};
  };
  joining.stop_asked = options_.stop_asked;
  joining.serve_until = [this](int64_t until_ns) { context_.serves_until_ns = until_ns; };
  joining.ttl_ms = options_.config.lease_ms;
  joining.accept_data_loss = options_.config.accept_data_loss;
  joining.clock = &clock_;
  SLUICE_ASSIGN_OR_RETURN(membership_, Membership::join(*context_.block, std::move(joining)));
  const NodeInfo joined = membership_->info();
  const uint64_t floor = defect(Defect::kCeilingIsNotKept) ? 0 : membership_->clock_floor();
  SLUICE_RETURN_IF_ERROR(store_->clock().observe(floor));
  if (membership_->lost_data()) SLUICE_RETURN_IF_ERROR(store_->miss_cuts_before(floor));
  if (!defect(Defect::kJoinIsNotConfirmed)) SLUICE_RETURN_IF_ERROR(store_->confirm_join());
  rates_->work().resume(joined.rates);
  confirmed_ = true;
  context_.number = joined.number;
  context_.joined_at = membership_->joined_at();
  context_.ready = true;
  clock_monitor_->start();
  return absl::OkStatus();
}

// The largest change that live nodes have had an answer about from this node's last join on: the
// cluster block may be behind by one renewal of the lease.
uint64_t NodeImpl::ask_peers_of_store() {
  const Store::Found& found = store_->found();
  if (found.joined.empty() || defect(Defect::kPeersAreNotAsked)) return 0;
  std::vector<std::string> names = directory_->snapshot()->live_names();
  std::erase(names, context_.name);
  std::atomic<uint64_t> largest{0};
  parallel_for(names.size(), [&](size_t i) {
    const auto peer = peers_->find(names[i]);
    if (!peer.ok()) return;
    grpc::ClientContext call;
    set_timeout(call, kRecallMs);
    v1::RecallRequest request;
    request.set_node(context_.name);
    request.set_token(found.joined);
    v1::RecallReply reply;
    if (!(*peer)->peer().RecallStore(&call, request, &reply).ok()) return;
    uint64_t seen = largest;
    while (seen < reply.sequence() && !largest.compare_exchange_weak(seen, reply.sequence())) {
    }
  });
  return largest;
}

absl::Status NodeImpl::open() {
  context_.block = options_.block;
  if (context_.block == nullptr) {
    SLUICE_ASSIGN_OR_RETURN(owned_block_, open_cluster_block(options_.config.cluster));
    context_.block = owned_block_.get();
  }
  SLUICE_ASSIGN_OR_RETURN(directory_, Directory::open(*context_.block));
  const auto known = directory_->snapshot();
  SLUICE_RETURN_IF_ERROR(
      check_arena(options_.config.arena_bytes,
                  known->members.size() + (known->find(options_.config.name) == nullptr)));
  SLUICE_RETURN_IF_ERROR(open_store());
  NodeRates::Options measuring;
  measuring.data_folder = options_.config.data_folder;
  measuring.limit = static_cast<double>(options_.config.bytes_per_second);
  measuring.least_work_seconds = options_.least_work_seconds;
  rates_ = std::make_unique<NodeRates>(measuring, clock_);
  context_.work = &rates_->work();
  context_.stages = [this] {
    return std::vector<StageReport>{
        report_of(context_.name, DataStage::kWire, exchange_->times()),
        report_of(context_.name, DataStage::kKeep, rates_->keep().times()),
        report_of(context_.name, DataStage::kBuild, rates_->ingest().times())};
  };
  SLUICE_RETURN_IF_ERROR(open_exchange());
  peers_ = std::make_unique<Peers>(*directory_, clock_,
                                   options_.dialer == nullptr ? grpc_dialer() : *options_.dialer);
  router_ = std::make_unique<DirectoryRouter>(*directory_);
  context_.name = options_.config.name;
  context_.cluster_url = options_.config.cluster;
  context_.archive_folder = options_.config.archive_folder;
  if (options_.open_block) context_.open_block = options_.open_block;
  context_.clock = &clock_;
  context_.directory = directory_.get();
  context_.peers = peers_.get();
  context_.store = store_.get();
  context_.exchange = exchange_.get();
  context_.archives = &archives_;
  context_.trees = trees_.get();
  fence_ = std::make_unique<JobFence>(
      *store_, "backup", [&block = *context_.block](const std::string& backup, uint64_t attempt) {
        return check_attempt(block, backup, attempt);
      });
  context_.fence = fence_.get();
  clock_monitor_ = std::make_unique<ClockMonitor>(context_, *cluster_clock_);
  context_.clock_monitor = clock_monitor_.get();
  WriteServer::Options writes;
  writes.node = context_.name;
  writes.write_quorum = context_.cluster().write_quorum();
  writes.tick_ms = options_.ticks.requests_ms;
  writes.keep = &rates_->keep();
  writes.lots.ingest = &rates_->ingest();
  writes.gate = [this] { return context_.check_ready(); };
  writes.on_answer = [this](const std::string& node, const std::string& token, uint64_t sequence) {
    if (const auto peer = peers_->find(node); peer.ok()) (*peer)->remember(token, sequence);
  };
  SLUICE_ASSIGN_OR_RETURN(write_server_, WriteServer::start(*exchange_, *store_, *router_, writes));
  SLUICE_ASSIGN_OR_RETURN(roles_, BackupRoles::start(context_));
  SLUICE_ASSIGN_OR_RETURN(manager_, BackupManager::start(context_, options_.backup));
  SLUICE_RETURN_IF_ERROR(open_server());
  clock_monitor_->measure();
  return absl::OkStatus();
}

absl::Status NodeImpl::begin() {
  SLUICE_RETURN_IF_ERROR(join());
  timer_ = guarded_thread("the node's timer", [this] { keep_time(); });
  spdlog::info("{}: control {}, data {} ({})", context_.name, control_address_, data_address_,
               options_.config.driver);
  return absl::OkStatus();
}

// Takes cuts that are due, and notices the first distribution table.
void NodeImpl::keep_time() {
  MutexLock lock(mutex_);
  std::string reported;
  const auto tick = std::chrono::milliseconds(options_.ticks.timer_ms);
  while (!changed_.wait_for(lock, tick, [this]() SLUICE_REQUIRES(mutex_) { return stopping_; })) {
    lock.unlock();
    guarded("the node's timer", [&] {
      const auto taken = store_->take_due_cut();
      if (!taken.ok() && reported != message_of(taken.status())) {
        reported = message_of(taken.status());
        spdlog::error("{}: the cut cannot be taken: {}", context_.name, reported);
      }
      // Where it fails, so do writes, which tell why.
      store_->flush_if_idle().IgnoreError();
      if (!serving_) look_for_table();
      look_after_disk();
    }).IgnoreError();  // it is logged, and done again
    lock.lock();
  }
}

void NodeImpl::look_for_table() {
  const auto snapshot = directory_->snapshot();
  if (snapshot->table == nullptr) return;
  // In a new cluster the others were not known yet when this node started.
  const absl::Status fits =
      check_arena(options_.config.arena_bytes, snapshot->table->members().size());
  {
    const MutexLock lock(mutex_);
    if (!unfit_.ok()) return;
    unfit_ = fits;
    if (!fits.ok()) {
      spdlog::error("{}: does not serve: {}", context_.name, message_of(fits));
      return;
    }
    serving_ = true;
  }
  server_->set_serving();
  changed_.notify_all();
  spdlog::info("{}: serves", context_.name);
}

// Says when the store stops taking writes, and lets it go on once a full disk has room again.
void NodeImpl::look_after_disk() {
  const absl::Status writable = store_->writable();
  if (writable.ok()) return;
  const int64_t now = clock_.monotonic_ns();
  if (!takes_no_writes_) {
    takes_no_writes_ = true;
    spdlog::error("{}: takes no writes: {}", context_.name, message_of(writable));
  } else if (now < resume_ns_) {
    return;
  }
  resume_ns_ = now + kResumeIntervalNs;
  if (!store_->resume().ok()) return;
  takes_no_writes_ = false;
  spdlog::info("{}: its disk has room, it takes writes again", context_.name);
}

void NodeImpl::stop() {
  {
    const MutexLock lock(mutex_);
    if (stopped_) return;
    stopped_ = stopping_ = true;
    serving_ = false;
  }
  changed_.notify_all();
  if (directory_ != nullptr) directory_->block().limit_calls(kLastCallMs);
  if (timer_.joinable()) timer_.join();
  context_.ready = false;
  clock_monitor_.reset();
  if (manager_ != nullptr) manager_->stop();
  if (serving_service_ != nullptr) serving_service_->service().stop();
  if (server_ != nullptr) server_->stop();
  manager_.reset();
  roles_.reset();
  write_server_.reset();
  membership_.reset();
  exchange_.reset();
  directory_.reset();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Node>> Node::start(const NodeOptions& options) {
  auto node = std::make_unique<NodeImpl>(options);
  absl::Status status = with_context(node->open(), fmt::format("node {}", options.config.name));
  // What is said of a membership names its node.
  if (status.ok()) status = node->begin();
  if (!status.ok()) {
    node->stop();
    return status;
  }
  return node;
}

absl::Status run_node(const NodeConfig& config) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  raise_descriptor_limit();
  NodeOptions options;
  options.config = config;
  RebalanceOptions& rebalance = options.backup.rebalance;
  rebalance.after_s = static_cast<double>(config.rebalance_after_ms) / 1000;
  if (config.rebalance_after_ms == 0) rebalance.most = 0;
  options.stop_asked = [] {
    sigset_t pending;
    return sigpending(&pending) == 0 &&
           (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
  };
  SLUICE_ASSIGN_OR_RETURN(const auto node, Node::start(options));
  while (true) {
    const timespec second{1, 0};
    const int received = sigtimedwait(&signals, nullptr, &second);
    if (received > 0) {
      spdlog::info("{}: stops ({})", config.name, strsignal(received));
      break;
    }
    if (absl::Status status = node->status(); absl::IsAborted(status) ||
                                              absl::IsAlreadyExists(status) ||
                                              absl::IsInvalidArgument(status)) {
      node->stop();
      return status;
    }
  }
  node->stop();
  return absl::OkStatus();
}

}  // namespace sluice
