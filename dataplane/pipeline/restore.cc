#include "dataplane/pipeline/restore.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/status.h"
#include "dataplane/pipeline/block_regrouper.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/pipeline/restore_ledger.h"
#include "dataplane/pipeline/restore_plan.h"

namespace sluice {
namespace {

constexpr size_t kWorkers = 6;

// Why a unit was not written everywhere.
struct Failure {
  std::string node;
  absl::Status status;
  bool permanent = false;
  bool unread = false;  // the archive could not be read: what it holds is not known from reading it
};

// The first replica that failed, and the others after it in the reason.
Failure first_of(const std::vector<WriteReply::Failure>& failures) {
  const WriteReply::Failure& first = failures.front();
  if (failures.size() == 1) return Failure{first.node, first.status};
  std::string reason(message_of(first.status));
  for (size_t i = 1; i < failures.size(); ++i) {
    reason += fmt::format("; {} too: {}", failures[i].node, message_of(failures[i].status));
  }
  return Failure{first.node, absl::Status(first.status.code(), reason)};
}

// Threads read units of lots and send them without waiting; replies end them. The buffers bound
// what is in flight. Other units (repacked, or sent again) are carried by one thread each from the
// archive to their last reply.
class RestoreJob {
 public:
  RestoreJob(Exchange& exchange, ArchiveReader& archive, SlotRouter& router,
             const RestoreOptions& options);
  absl::StatusOr<RestoreResult> run();

 private:
  struct Worker {
    explicit Worker(uint32_t slot_bits, std::string_view prefix) : regrouper(slot_bits, prefix) {}
    BlockRegrouper regrouper;
  };
  // A node that keeps blocks of a lot, and the token to ask by.
  using Keeping = std::pair<std::string, uint64_t>;
  struct KeptUnit;
  // What one try of a unit did.
  struct Try {
    uint64_t records = 0;  // live
    uint64_t deletions = 0;
    uint64_t bytes = 0;
    uint64_t newest_stamp = 0;
    uint64_t kept_newer = 0;
    std::map<std::string, RestoreResult::Node> nodes;
    std::map<uint32_t, SlotDigest> digests;
    std::set<uint32_t> failed_slots;  // of a repacked one: not tried again in this try
    std::set<Keeping> keeping;        // who keeps blocks of it until the lot's end
    SlotLedger::Unit holders;
    std::optional<Failure> failure;
  };

  // Live records, and deletions, that end in a block.
  struct BlockCount {
    uint64_t records = 0;
    uint64_t deletions = 0;
    uint64_t bytes = 0;
  };
  struct Flight;
  struct Request;

  void work();
  void send_units(const std::vector<RestorePlan::Unit>& units);
  absl::Status add_block(const std::shared_ptr<Flight>& flight, const BlockLocation& location,
                         Request* request);
  void send_request(Request request);
  void prefer_local(SlotRoute* route) const;
  void land(const std::shared_ptr<Flight>& flight);
  static std::optional<Failure> take_reply(const SlotRoute& route,
                                           absl::StatusOr<WriteReply>& reply, uint32_t slot,
                                           const BlockCount& count, Try* result);
  static absl::Status count_block(std::span<const uint8_t> block, BlockCount* count);
  // The lot's number among all restores.
  uint64_t lot_id(int lot) const;
  void end_lot(int lot);
  std::map<Keeping, absl::StatusOr<WriteReply>> ask(int lot, const std::set<Keeping>& questions);
  absl::StatusOr<RequestClient::CallPtr> send_end(int lot, const std::string& node,
                                                  const LotEnd& end);
  void try_unit(Worker& worker, RestorePlan::Unit& unit, Try* result);
  void send_plain(BlockBuffer buffer, const BlockLocation& location, const RestorePlan::Unit& unit,
                  Try* result);
  void send_regrouped(Worker& worker, BlockBuffer buffer, bool completed,
                      const RestorePlan::Unit& unit, Try* result);
  // Until every replica has the block.
  std::optional<Failure> send(BlockBuffer& buffer, uint32_t bytes, uint32_t slot, int tries,
                              const BlockCount& count, Try* result);
  // Of reading the archive.
  Failure failure_of(const RestorePlan::Unit& unit, const absl::Status& status) const;
  absl::StatusOr<BlockBuffer> take_buffer();
  void account(RestorePlan::Unit unit, Try result);
  void give_up(const RestorePlan::Unit& unit, const Try& result);
  void count_unit(const Try& result);
  absl::Status count_failures();
  void count_completed_slots();
  bool cancelled_now() const {
    return options_.cancellation != nullptr && options_.cancellation->cancelled();
  }
  bool completed_before(uint32_t slot) const { return options_.completed_slots.contains(slot); }

  Exchange& exchange_;
  ArchiveReader& archive_;
  SlotRouter& router_;
  const RestoreOptions& options_;
  const uint32_t archive_bits_;
  const uint32_t cluster_bits_;
  const bool repack_;
  RestorePlan plan_;
  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<RequestClient> client_;
  std::atomic<bool> stale_route_{false};
  std::mutex mutex_;  // what follows, and callbacks
  SlotLedger ledger_;
  RestoreResult result_;
  std::map<int, std::vector<KeptUnit>> kept_;     // by lot
  std::map<std::string, std::string> addresses_;  // of nodes that were routed to
};

// A unit of a lot whose blocks are on their way.
struct RestoreJob::Flight {
  explicit Flight(const RestorePlan::Unit& of) : unit(of) {}
  void fail(Failure failure) {
    const std::lock_guard lock(mutex);
    if (!result.failure.has_value()) result.failure = std::move(failure);
  }
  void add(const BlockCount& count) {
    const std::lock_guard lock(mutex);
    result.records += count.records;
    result.deletions += count.deletions;
    result.bytes += count.bytes;
  }

  RestorePlan::Unit unit;
  std::mutex mutex;
  size_t open = 1;  // replies that may still come, and 1 while blocks are still being sent
  Try result;
};

// Blocks of one lot, of slots with the same replicas, that go out together.
struct RestoreJob::Request {
  struct Block {
    std::shared_ptr<Flight> flight;
    uint32_t slot = 0;
    BlockCount count;
  };
  BlockBuffer buffer;
  uint32_t bytes = 0;
  std::vector<Block> blocks;
};

struct RestoreJob::KeptUnit {
  RestorePlan::Unit unit;
  Try result;
};

RestoreJob::RestoreJob(Exchange& exchange, ArchiveReader& archive, SlotRouter& router,
                       const RestoreOptions& options)
    : exchange_(exchange),
      archive_(archive),
      router_(router),
      options_(options),
      archive_bits_(archive.manifest().identity.slot_bits),
      cluster_bits_(router.slot_bits()),
      repack_(archive_bits_ != cluster_bits_ || !options.prefix.empty()),
      plan_(archive, options, exchange.clock()) {}

absl::StatusOr<RestoreResult> RestoreJob::run() {
  const size_t requests = std::max<size_t>(options_.requests, 1);
  SLUICE_ASSIGN_OR_RETURN(pool_,
                          exchange_.arena().make_pool("restore", requests * (repack_ ? 2 : 1)));
  // Where archive slots are finer or coarser than the cluster's, the low bits they share say where
  // most of a slot goes.
  const uint32_t mask = (uint32_t{1} << std::min(archive_bits_, cluster_bits_)) - 1;
  SLUICE_RETURN_IF_ERROR(plan_.build(
      [&](uint32_t slot) -> absl::StatusOr<SlotRoute> {
        SLUICE_ASSIGN_OR_RETURN(SlotRoute route, router_.route(slot & mask));
        if (route.replicas.empty()) return not_found("slot {} has no replicas", slot & mask);
        for (const auto& replica : route.replicas) addresses_[replica.node] = replica.address;
        prefer_local(&route);
        return route;
      },
      /*lots=*/!repack_));
  RequestClient::Options client;
  client.kind = StreamKind::kWrite;
  client.cluster = options_.cluster;
  client.job = options_.id;
  client.attempt = options_.attempt;
  client_ = std::make_unique<RequestClient>(exchange_, client);
  if (!repack_) count_completed_slots();

  std::vector<std::thread> threads;
  const size_t workers = repack_ ? requests : std::min(requests, kWorkers);
  for (size_t i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
  for (std::thread& thread : threads) thread.join();
  client_.reset();
  pool_->wait_until_whole();
  result_.cancelled = cancelled_now();
  SLUICE_RETURN_IF_ERROR(count_failures());
  return std::move(result_);
}

absl::Status RestoreJob::count_failures() {
  std::vector<RestoreUnit> failed = plan_.failed();
  std::vector<RestoreUnit*> unread;
  for (RestoreUnit& unit : failed) {
    if (unit.records + unit.deletions == 0) unread.push_back(&unit);
  }
  if (!unread.empty()) {
    BlockBuffer buffer = pool_->try_take();
    SLUICE_RETURN_IF_ERROR(count_unread(archive_, unread, buffer));
  }
  const bool counted_by_manifest = !repack_ && options_.only.empty();
  for (RestoreUnit* unit : unread) {
    if (!counted_by_manifest) result_.records += unit->records;
  }
  for (const RestoreUnit& unit : failed) {
    result_.failed_records += unit.records;
    result_.failed_deletions += unit.deletions;
  }
  result_.failed = coalesce(std::move(failed));
  return absl::OkStatus();
}

// Plain restores know from the manifest what is there; where records are picked or regrouped, they
// are counted as they come by, also those of completed slots.
void RestoreJob::count_completed_slots() {
  if (!options_.only.empty()) return;
  for (const PartManifest& part : archive_.manifest().parts) {
    const auto& here = archive_.parts();
    if (std::none_of(here.begin(), here.end(),
                     [&](const auto& open) { return open.node == part.node; })) {
      continue;
    }
    for (const SlotSummary& slot : part.slots) {
      result_.records += slot.digest.records;
      result_.bytes += slot.digest.bytes;
      result_.expected[slot.slot] = slot.digest;
      if (completed_before(slot.slot)) result_.written += slot.digest.records;
    }
  }
  result_.newest_stamp = archive_.manifest().newest_stamp;
}

void RestoreJob::work() {
  Worker worker(cluster_bits_, options_.prefix);
  while (std::optional<RestorePlan::Work> work = plan_.take()) {
    if (stale_route_.exchange(false)) router_.refresh();
    if (work->units.empty()) {
      end_lot(work->ended_lot);
      continue;
    }
    if (work->units.front().lot != RestorePlan::kNoLot) {
      send_units(work->units);
      continue;
    }
    Try result;
    try_unit(worker, work->units.front(), &result);
    account(work->units.front(), std::move(result));
  }
}

// Sends blocks of a lot to be kept, as many in one request as it holds, without waiting for the
// replies.
void RestoreJob::send_units(const std::vector<RestorePlan::Unit>& units) {
  Request request;
  absl::Status cancelled;
  std::vector<std::shared_ptr<Flight>> flights;
  for (const RestorePlan::Unit& unit : units) {
    const auto& flight = flights.emplace_back(std::make_shared<Flight>(unit));
    if (!cancelled.ok()) flight->fail(Failure{"", cancelled});
    for (uint32_t i = 0; i < unit.blocks && cancelled.ok(); ++i) {
      const BlockLocation& location = plan_.blocks(unit.part)[unit.first + i];
      if (padded(request.bytes) + location.bytes > kMaxBlockBytes) {
        send_request(std::exchange(request, {}));
      }
      const absl::Status status = add_block(flight, location, &request);
      if (status.ok()) continue;
      flight->fail(request.buffer ? failure_of(unit, status) : Failure{"", status});
      if (!request.buffer) cancelled = status;
      break;
    }
  }
  if (!request.blocks.empty()) send_request(std::move(request));
  for (const auto& flight : flights) land(flight);
}

// Reads the block behind what stands in the request.
absl::Status RestoreJob::add_block(const std::shared_ptr<Flight>& flight,
                                   const BlockLocation& location, Request* request) {
  if (!request->buffer) {
    SLUICE_ASSIGN_OR_RETURN(request->buffer, take_buffer());
  }
  const auto begin = static_cast<uint32_t>(padded(request->bytes));
  const std::span<uint8_t> into = request->buffer.span().subspan(begin);
  Request::Block block{flight, location.slot, {}};
  {
    Stage::Work work(options_.read);
    SLUICE_RETURN_IF_ERROR(archive_.read_block(flight->unit.part, location, into));
    SLUICE_RETURN_IF_ERROR(count_block(into.first(location.bytes), &block.count));
    work.add(location.bytes);
  }
  {
    const std::lock_guard lock(flight->mutex);
    ++flight->open;
  }
  flight->add(block.count);
  request->bytes = begin + location.bytes;
  request->blocks.push_back(std::move(block));
  return absl::OkStatus();
}

void RestoreJob::send_request(Request request) {
  const uint32_t slot = request.blocks.front().slot;
  absl::StatusOr<SlotRoute> route = router_.route(slot);
  if (route.ok() && route->replicas.empty()) route = not_found("slot {} has no replicas", slot);
  if (!route.ok()) {
    for (const Request::Block& block : request.blocks) {
      block.flight->fail({"", route.status()});
      land(block.flight);
    }
    return;
  }
  prefer_local(&*route);
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = slot;
  envelope.attempt = route->epoch;
  envelope.payload_bytes = request.bytes;
  envelope.flags = Envelope::kKeep;
  envelope.lot = lot_id(request.blocks.front().flight->unit.lot);
  envelope.sequence = client_->next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, request.buffer);
  auto done = [this, blocks = std::move(request.blocks),
               route = *route](const RequestClient::Outcome& outcome) {
    absl::StatusOr<WriteReply> reply = WriteReply::of(outcome.reply);
    for (const Request::Block& block : blocks) {
      {
        const std::lock_guard lock(block.flight->mutex);
        Try& result = block.flight->result;
        auto failure = take_reply(route, reply, block.slot, block.count, &result);
        if (!result.failure.has_value()) result.failure = std::move(failure);
      }
      land(block.flight);
    }
  };
  client_->send(route->replicas.front(), std::move(request.buffer), bytes, envelope.sequence,
                options_.request_timeout_ms, options_.request_timeout_ms, std::move(done));
}

// A replica on this node takes the block without a wire.
void RestoreJob::prefer_local(SlotRoute* route) const {
  const std::string here = exchange_.address();
  const auto local = std::find_if(route->replicas.begin(), route->replicas.end(),
                                  [&](const auto& replica) { return replica.address == here; });
  if (!here.empty() && local != route->replicas.end()) std::swap(*local, route->replicas.front());
}

// One of the unit's blocks was answered, or all were sent.
void RestoreJob::land(const std::shared_ptr<Flight>& flight) {
  {
    const std::lock_guard lock(flight->mutex);
    if (--flight->open > 0) return;
  }
  Try& result = flight->result;
  if (result.failure.has_value() && absl::IsFailedPrecondition(result.failure->status)) {
    stale_route_ = true;
  }
  if (result.failure.has_value() || result.keeping.empty()) {
    return account(flight->unit, std::move(result));
  }
  // Before the plan may hand out the lot's end.
  {
    const std::lock_guard lock(mutex_);
    RestorePlan::Unit unit = flight->unit;
    unit.in_flight = false;
    unit.lot = RestorePlan::kNoLot;
    kept_[flight->unit.lot].push_back({unit, std::move(result)});
  }
  plan_.kept(&flight->unit);
}

// What the replica that was asked, route's first, said of a block for all of them.
std::optional<Failure> RestoreJob::take_reply(const SlotRoute& route,
                                              absl::StatusOr<WriteReply>& reply, uint32_t slot,
                                              const BlockCount& count, Try* result) {
  const std::string& node = route.replicas.front().node;
  if (!reply.ok()) return Failure{node, reply.status()};
  if (!reply->failures.empty()) return first_of(reply->failures);
  if (reply->holders.size() != route.replicas.size()) {
    return Failure{node, data_loss("its answer names {} of {} replicas that have the block",
                                   reply->holders.size(), route.replicas.size())};
  }
  // Of the slot's blocks in one request, with the first.
  if (const auto kept = reply->kept.extract(slot); !kept.empty()) {
    result->kept_newer += kept.mapped();
  }
  result->holders.add(route.epoch, reply->holders);
  for (const WriteReply::Holder& holder : reply->holders) {
    if (holder.keeping != 0) result->keeping.insert({holder.node, holder.keeping});
  }
  for (const SlotRoute::Replica& holder : route.replicas) {
    RestoreResult::Node& sum = result->nodes[holder.node];
    sum.records += count.records;
    sum.bytes += count.bytes;
  }
  return std::nullopt;
}

uint64_t RestoreJob::lot_id(int lot) const {
  // 0 says that there is no lot.
  return std::max<uint64_t>(xxh3_64(fmt::format("{}/{}/{}", options_.id, options_.attempt, lot)),
                            1);
}

// Asks all nodes at once what became of the lot's blocks, and accounts for the units by what they
// say.
void RestoreJob::end_lot(int lot) {
  std::vector<KeptUnit> units;
  {
    const std::lock_guard lock(mutex_);
    if (const auto node = kept_.extract(lot); !node.empty()) units = std::move(node.mapped());
  }
  // Each node that waits for the lot is told, also where it keeps nothing of this sender.
  std::set<Keeping> questions;
  for (const KeptUnit& kept : units)
    questions.insert(kept.result.keeping.begin(), kept.result.keeping.end());
  for (const auto& [node, senders] : plan_.holders_of(lot)) {
    const auto asked = questions.lower_bound({node, 0});
    if (asked == questions.end() || asked->first != node) questions.insert({node, 0});
  }
  std::map<Keeping, absl::StatusOr<WriteReply>> answers = ask(lot, questions);
  std::map<uint32_t, uint64_t> kept_newer;  // by slot, the largest of its replicas
  for (const auto& [question, answer] : answers) {
    if (!answer.ok()) continue;
    for (const auto& [slot, records] : answer->kept) {
      kept_newer[slot] = std::max(kept_newer[slot], records);
    }
  }
  for (KeptUnit& kept : units) {
    for (const Keeping& keeping : kept.result.keeping) {
      const absl::StatusOr<WriteReply>& answer = answers.at(keeping);
      if (!answer.ok()) {
        kept.result.failure = Failure{keeping.first, answer.status()};
      } else if (!answer->failures.empty()) {
        kept.result.failure = first_of(answer->failures);
      }
      if (kept.result.failure.has_value()) break;
    }
    // Counted once, with a slot's first unit.
    const uint32_t slot = plan_.blocks(kept.unit.part)[kept.unit.first].slot;
    if (!kept.result.failure.has_value()) {
      kept.result.kept_newer += std::exchange(kept_newer[slot], 0);
    }
    account(kept.unit, std::move(kept.result));
  }
  plan_.lot_done(lot);
}

std::map<RestoreJob::Keeping, absl::StatusOr<WriteReply>> RestoreJob::ask(
    int lot, const std::set<Keeping>& questions) {
  std::map<Keeping, absl::StatusOr<WriteReply>> answers;
  std::vector<std::pair<Keeping, RequestClient::CallPtr>> calls;
  for (const Keeping& question : questions) {
    const auto& [node, token] = question;
    const auto& holders = plan_.holders_of(lot);
    const auto holder = holders.find(node);
    LotEnd end;
    end.sender = plan_.own_sender();
    end.senders = holder == holders.end() ? 1 : holder->second;
    end.token = token;
    absl::StatusOr<RequestClient::CallPtr> call = send_end(lot, node, end);
    if (call.ok()) {
      calls.emplace_back(question, *call);
    } else {
      answers.emplace(question, call.status());
    }
  }
  for (const auto& [question, call] : calls) {
    answers.emplace(question, WriteReply::of(client_->finish(call, options_.request_timeout_ms)));
  }
  return answers;
}

absl::StatusOr<RequestClient::CallPtr> RestoreJob::send_end(int lot, const std::string& node,
                                                            const LotEnd& end) {
  SLUICE_ASSIGN_OR_RETURN(BlockBuffer buffer, take_buffer());
  const std::string payload = end.encode();
  std::copy(payload.begin(), payload.end(), buffer.data());
  Envelope envelope;
  envelope.kind = MessageKind::kLotEnd;
  envelope.lot = lot_id(lot);
  envelope.payload_bytes = static_cast<uint32_t>(payload.size());
  envelope.sequence = client_->next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  return client_->begin({node, addresses_.at(node)}, std::move(buffer), bytes, envelope.sequence,
                        options_.request_timeout_ms);
}

absl::StatusOr<BlockBuffer> RestoreJob::take_buffer() {
  for (;;) {
    if (BlockBuffer buffer = pool_->take(kCancellationPollMs)) return buffer;
    if (cancelled_now()) return cancelled("the restore is cancelled");
  }
}

Failure RestoreJob::failure_of(const RestorePlan::Unit& unit, const absl::Status& status) const {
  return {fmt::format("archive of {}", archive_.parts()[unit.part].node), status,
          absl::IsDataLoss(status) || absl::IsFailedPrecondition(status), /*unread=*/true};
}

void RestoreJob::try_unit(Worker& worker, RestorePlan::Unit& unit, Try* result) {
  worker.regrouper.reset();
  // The last try goes on after a failure, without sending, so that it is known how many records the
  // unit has. One that is repacked goes on in any case: its other slots may have healthy replicas.
  const bool last = unit.tries + 1 >= options_.tries;
  for (uint32_t i = 0; i < unit.blocks; ++i) {
    if (result->failure.has_value() && (result->failure->permanent || (!last && !repack_))) return;
    const BlockLocation& location = plan_.blocks(unit.part)[unit.first + i];
    const bool completed = completed_before(location.slot);
    if (completed && !repack_) continue;
    absl::StatusOr<BlockBuffer> buffer = take_buffer();
    if (!buffer.ok()) {
      result->failure = Failure{"", buffer.status()};
      return;
    }
    absl::Status status;
    {
      Stage::Work work(options_.read);
      status = archive_.read_block(unit.part, location, buffer->span());
      if (status.ok()) work.add(location.bytes);
    }
    if (!status.ok()) {
      result->failure = failure_of(unit, status);
    } else if (repack_) {
      send_regrouped(worker, *std::move(buffer), completed, unit, result);
    } else {
      send_plain(*std::move(buffer), location, unit, result);
    }
  }
}

void RestoreJob::send_plain(BlockBuffer buffer, const BlockLocation& location,
                            const RestorePlan::Unit& unit, Try* result) {
  BlockCount count;
  const absl::Status status = count_block({buffer.data(), location.bytes}, &count);
  result->records += count.records;
  result->deletions += count.deletions;
  result->bytes += count.bytes;
  if (!status.ok()) {
    result->failure = failure_of(unit, status);
    return;
  }
  if (result->failure.has_value()) return;
  result->failure = send(buffer, location.bytes, location.slot, unit.tries, count, result);
}

void RestoreJob::send_regrouped(Worker& worker, BlockBuffer buffer, bool completed,
                                const RestorePlan::Unit& unit, Try* result) {
  // Live records by new slot that no block has gone out with yet; of a run they count with its last
  // block.
  std::map<uint32_t, RestoreResult::Node> unsent;
  BlockRegrouper::Sink sink;
  sink.take = [this] { return take_buffer(); };
  sink.record = [&](uint32_t slot, std::string_view key, const RecordSummary& summary) {
    result->digests[slot].add(key, summary);
    result->newest_stamp = std::max(result->newest_stamp, summary.version.stamp);
    if (summary.tombstone) {
      ++result->deletions;
      return;
    }
    RestoreResult::Node& count = unsent[slot];
    ++count.records;
    count.bytes += key.size() + summary.value_bytes;
    ++result->records;
    result->bytes += key.size() + summary.value_bytes;
  };
  sink.put = [&](BlockBuffer block, uint32_t block_bytes, uint32_t slot) {
    if (completed || result->failed_slots.contains(slot)) return absl::OkStatus();
    const RestoreResult::Node count = std::exchange(unsent[slot], {});
    std::optional<Failure> failure =
        send(block, block_bytes, slot, unit.tries, {count.records, 0, count.bytes}, result);
    if (failure.has_value()) {
      result->failed_slots.insert(slot);
      if (!result->failure.has_value()) result->failure = std::move(failure);
    }
    return absl::OkStatus();
  };
  const auto header = peek_block_header({buffer.data(), buffer.capacity()});
  absl::Status status = header.status();
  if (status.ok()) {
    absl::StatusOr<BlockReader> reader = BlockReader::open({buffer.data(), header->stored_bytes});
    status = reader.ok() ? worker.regrouper.regroup(*reader, sink) : reader.status();
  }
  if (!status.ok()) result->failure = failure_of(unit, status);
}

std::optional<Failure> RestoreJob::send(BlockBuffer& buffer, uint32_t bytes, uint32_t slot,
                                        int tries, const BlockCount& count, Try* result) {
  absl::StatusOr<SlotRoute> route = router_.route(slot);
  if (!route.ok() || route->replicas.empty()) {
    return Failure{"", route.ok() ? not_found("slot {} has no replicas", slot) : route.status()};
  }
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = slot;
  envelope.attempt = route->epoch;
  envelope.payload_bytes = bytes;
  // A later try begins with another replica: the first one may be alive but stuck.
  std::rotate(route->replicas.begin(),
              route->replicas.begin() +
                  static_cast<std::ptrdiff_t>(static_cast<size_t>(tries) % route->replicas.size()),
              route->replicas.end());
  std::optional<Failure> failure;
  for (size_t i = 0; i < route->replicas.size(); ++i) {
    const SlotRoute::Replica& first = route->replicas.front();
    envelope.sequence = client_->next_sequence();
    const uint32_t message_bytes = Envelope::seal(envelope, buffer);
    absl::StatusOr<RequestClient::CallPtr> call = client_->begin(
        first, buffer.share(), message_bytes, envelope.sequence, options_.request_timeout_ms);
    if (call.ok()) {
      // The envelope of a request that is still on its way must not change under it, so a sent one
      // is not sent to another replica in this try.
      auto reply = WriteReply::of(client_->finish(*call, options_.request_timeout_ms));
      failure = take_reply(*route, reply, slot, count, result);
      break;
    }
    if (!failure.has_value()) failure = Failure{first.node, call.status()};
    std::rotate(route->replicas.begin(), route->replicas.begin() + 1, route->replicas.end());
  }
  if (failure.has_value() && absl::IsFailedPrecondition(failure->status)) router_.refresh();
  return failure;
}

absl::Status RestoreJob::count_block(std::span<const uint8_t> block, BlockCount* count) {
  SLUICE_ASSIGN_OR_RETURN(BlockReader reader, BlockReader::open_verified(block));
  for (;;) {
    BlockEntry entry;
    SLUICE_ASSIGN_OR_RETURN(const bool more, reader.next(&entry));
    if (!more) return absl::OkStatus();
    if (entry.tombstone) ++count->deletions;
    if (entry.tombstone || !entry.last()) continue;
    ++count->records;
    count->bytes += entry.key.size() + entry.value_bytes;
  }
}

void RestoreJob::account(RestorePlan::Unit unit, Try result) {
  const bool failed = result.failure.has_value();
  const uint32_t slot = plan_.blocks(unit.part)[unit.first].slot;
  std::unique_lock lock(mutex_);
  const bool retry = failed && !result.failure->permanent && unit.tries + 1 < options_.tries;
  if (!failed || (!retry && !cancelled_now() && !result.failure->unread)) count_unit(result);
  if (!failed) {
    if (!completed_before(slot) || repack_) result_.written += result.records;
    ledger_.add(slot, result.holders, result.kept_newer);
    result_.kept_newer += result.kept_newer;
    for (const auto& [name, node] : result.nodes) {
      result_.nodes[name].records += node.records;
      result_.nodes[name].bytes += node.bytes;
    }
    if (plan_.done(unit).has_value() && options_.only.empty()) {
      const std::optional<RestoredSlot> restored = ledger_.complete(slot);
      if (restored.has_value() && !completed_before(slot) && options_.on_slot_complete) {
        options_.on_slot_complete(*restored);
      }
    }
    if (options_.on_progress) options_.on_progress(result_.written, result_.bytes);
    return;
  }
  if (retry || cancelled_now()) {  // a cancelled unit waits for a next life
    if (unit.tries++ == 0) ++result_.retried;
    plan_.retry(unit);
    return;
  }
  give_up(unit, result);
}

void RestoreJob::give_up(const RestorePlan::Unit& unit, const Try& result) {
  RestoreUnit failed;
  failed.node = result.failure->node;
  failed.reason = message_of(result.failure->status);
  failed.damaged = result.failure->permanent && result.failure->unread;
  if (!result.failure->unread) {
    failed.records = result.records;
    failed.deletions = result.deletions;
  }
  plan_.give_up(unit, std::move(failed));
}

void RestoreJob::count_unit(const Try& result) {
  if (!repack_ && options_.only.empty()) return;  // the manifest has said it
  result_.records += result.records;
  result_.bytes += result.bytes;
  result_.newest_stamp = std::max(result_.newest_stamp, result.newest_stamp);
  for (const auto& [slot, digest] : result.digests) {
    SlotDigest& sum = result_.expected[slot];
    sum.sum += digest.sum;
    sum.records += digest.records;
    sum.tombstones += digest.tombstones;
    sum.bytes += digest.bytes;
  }
}

}  // namespace

absl::StatusOr<RestoreResult> restore(Exchange& exchange, ArchiveReader& archive,
                                      SlotRouter& router, const RestoreOptions& options) {
  if (options.tries < 1 || options.requests_per_node < 1) {
    return invalid_argument("restore: at least one try and one request for each node");
  }
  RestoreJob job(exchange, archive, router, options);
  return job.run();
}

}  // namespace sluice
