#include "dataplane/pipeline/lot_sender.h"

#include <algorithm>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"

namespace sluice {

// A unit whose blocks are on their way.
struct LotSender::Flight {
  explicit Flight(const RestorePlan::Unit& of) : unit(of) {}
  void fail(UnitFailure failure) {
    const MutexLock lock(mutex);
    if (!result.failure.has_value()) result.failure = std::move(failure);
  }

  RestorePlan::Unit unit;
  Mutex mutex;
  // Replies that may still come, and 1 while blocks are still being sent.
  size_t open SLUICE_GUARDED_BY(mutex) = 1;
  // Once nothing is open, of whoever closed the last alone.
  UnitTry result;
};

// Blocks of one lot, of slots with the same replicas, that go out together.
struct LotSender::Request {
  struct Block {
    std::shared_ptr<Flight> flight;
    uint32_t slot = 0;
    RecordCount count;
  };
  BlockBuffer buffer;
  uint32_t bytes = 0;
  std::vector<Block> blocks;
};

void LotSender::send(const std::vector<RestorePlan::Unit>& units) {
  Request request;
  absl::Status no_buffer;
  std::vector<std::shared_ptr<Flight>> flights;
  for (const RestorePlan::Unit& unit : units) {
    const auto& flight = flights.emplace_back(std::make_shared<Flight>(unit));
    if (!no_buffer.ok()) flight->fail(UnitFailure{"", no_buffer});
    for (uint32_t i = 0; i < unit.blocks && no_buffer.ok(); ++i) {
      const BlockLocation& location = context_.plan.blocks(unit.part)[unit.first + i];
      if (padded(request.bytes) + location.bytes > kMaxBlockBytes) {
        send_request(std::exchange(request, {}));
      }
      const absl::Status status = add_block(flight, location, &request);
      if (status.ok()) continue;
      flight->fail(request.buffer ? context_.read_failure(unit.part, status)
                                  : UnitFailure{"", status});
      if (!request.buffer) no_buffer = status;
      break;
    }
  }
  if (!request.blocks.empty()) send_request(std::move(request));
  for (const auto& flight : flights) land(flight);
}

// Reads the block behind what stands in the request.
absl::Status LotSender::add_block(const std::shared_ptr<Flight>& flight,
                                  const BlockLocation& location, Request* request) {
  if (!request->buffer) {
    SLUICE_ASSIGN_OR_RETURN(request->buffer, context_.take_buffer());
  }
  const auto begin = static_cast<uint32_t>(padded(request->bytes));
  const std::span<uint8_t> into = request->buffer.span().subspan(begin);
  Request::Block block{flight, location.slot, {}};
  {
    Stage::Work work(context_.options.read);
    SLUICE_RETURN_IF_ERROR(context_.archive.read_block(flight->unit.part, location, into));
    SLUICE_ASSIGN_OR_RETURN(block.count, RecordCount::of_block(into.first(location.bytes)));
    work.add(location.bytes);
  }
  {
    const MutexLock lock(flight->mutex);
    ++flight->open;
    flight->result.add(block.count);
  }
  request->bytes = begin + location.bytes;
  request->blocks.push_back(std::move(block));
  return absl::OkStatus();
}

void LotSender::send_request(Request request) {
  const uint32_t slot = request.blocks.front().slot;
  absl::StatusOr<SlotRoute> route = context_.local_route(slot);
  if (!route.ok()) {
    for (const Request::Block& block : request.blocks) {
      block.flight->fail({"", route.status()});
      land(block.flight);
    }
    return;
  }
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = slot;
  envelope.attempt = route->epoch;
  envelope.payload_bytes = request.bytes;
  envelope.flags = Envelope::kKeep;
  envelope.lot = lot_id(request.blocks.front().flight->unit.lot);
  envelope.sequence = context_.client->next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, request.buffer);
  const SlotRoute::Replica to = route->replicas.front();
  auto done = [this, blocks = std::move(request.blocks),
               route = *std::move(route)](const RequestClient::Outcome& outcome) {
    absl::StatusOr<WriteReply> reply = WriteReply::of(outcome.reply);
    for (const Request::Block& block : blocks) {
      {
        const MutexLock lock(block.flight->mutex);
        UnitTry& result = block.flight->result;
        auto failure = result.take_reply(route, reply, block.slot, block.count);
        if (!result.failure.has_value()) result.failure = std::move(failure);
      }
      land(block.flight);
    }
  };
  const int64_t timeout_ms = context_.options.request_timeout_ms;
  context_.client->send(to, std::move(request.buffer), bytes, envelope.sequence, timeout_ms,
                        timeout_ms, std::move(done));
}

// One of the unit's blocks was answered, or all were sent.
void LotSender::land(const std::shared_ptr<Flight>& flight) {
  {
    const MutexLock lock(flight->mutex);
    if (--flight->open > 0) return;
  }
  UnitTry& result = flight->result;
  if (result.failure.has_value() && absl::IsFailedPrecondition(result.failure->status)) {
    context_.stale_route = true;
  }
  if (result.failure.has_value() || result.retained_by.empty()) {
    return context_.tally.account(flight->unit, std::move(result));
  }
  context_.tally.report(&flight->unit);
  // Before the plan may hand out the lot's end.
  {
    const MutexLock lock(mutex_);
    RestorePlan::Unit unit = flight->unit;
    unit.in_flight = false;
    unit.lot = RestorePlan::kNoLot;
    retained_[flight->unit.lot].push_back({unit, std::move(result)});
  }
  context_.plan.retained(&flight->unit);
}

void LotSender::end(int lot) {
  std::vector<RetainedUnit> units;
  {
    const MutexLock lock(mutex_);
    if (const auto node = retained_.extract(lot); !node.empty()) units = std::move(node.mapped());
  }
  // Each node that waits for the lot is told, also where it retains nothing of this sender.
  std::set<LotReplica> questions;
  for (const RetainedUnit& retained : units) {
    questions.insert(retained.result.retained_by.begin(), retained.result.retained_by.end());
  }
  for (const auto& [node, senders] : context_.plan.holders_of(lot)) {
    const auto asked = questions.lower_bound({node, 0});
    if (asked == questions.end() || asked->first != node) questions.insert({node, 0});
  }
  const Answers answers = ask(lot, questions);
  std::map<uint32_t, KeptRecords> kept;  // by slot, the largest of its replicas
  for (const auto& [question, answer] : answers) {
    if (!answer.ok()) continue;
    for (const auto& [slot, records] : answer->kept) kept[slot].merge(records);
  }
  for (RetainedUnit& retained : units) {
    UnitTry& result = retained.result;
    for (const LotReplica& replica : result.retained_by) {
      const absl::StatusOr<WriteReply>& answer = answers.at(replica);
      if (!answer.ok()) {
        result.failure = UnitFailure{replica.first, answer.status()};
      } else if (!answer->failures.empty()) {
        result.failure = UnitFailure::first_of(answer->failures);
      }
      if (result.failure.has_value()) break;
    }
    // Counted once, with a slot's first unit.
    const uint32_t slot = context_.plan.blocks(retained.unit.part)[retained.unit.first].slot;
    if (!result.failure.has_value()) result.kept.add(std::exchange(kept[slot], {}));
    context_.tally.account(retained.unit, std::move(result));
  }
  context_.plan.lot_done(lot);
}

LotSender::Answers LotSender::ask(int lot, const std::set<LotReplica>& questions) {
  Answers answers;
  std::vector<std::pair<LotReplica, RequestClient::CallPtr>> calls;
  for (const LotReplica& question : questions) {
    absl::StatusOr<RequestClient::CallPtr> call = send_end(lot, question);
    if (call.ok()) {
      calls.emplace_back(question, *call);
    } else {
      answers.emplace(question, call.status());
    }
  }
  for (const auto& [question, call] : calls) {
    answers.emplace(question, WriteReply::of(context_.client->finish(
                                  call, context_.options.request_timeout_ms)));
  }
  return answers;
}

absl::StatusOr<RequestClient::CallPtr> LotSender::send_end(int lot, const LotReplica& question) {
  const auto& [node, token] = question;
  const auto& holders = context_.plan.holders_of(lot);
  const auto holder = holders.find(node);
  LotEnd end;
  end.sender = context_.plan.own_sender();
  end.senders = holder == holders.end() ? 1 : holder->second;
  end.token = token;
  SLUICE_ASSIGN_OR_RETURN(BlockBuffer buffer, context_.take_buffer());
  const std::string payload = end.encode();
  std::copy(payload.begin(), payload.end(), buffer.data());
  Envelope envelope;
  envelope.kind = MessageKind::kLotEnd;
  envelope.lot = lot_id(lot);
  envelope.payload_bytes = static_cast<uint32_t>(payload.size());
  envelope.sequence = context_.client->next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, buffer);
  return context_.client->begin({node, context_.addresses.at(node)}, std::move(buffer), bytes,
                                envelope.sequence, context_.options.request_timeout_ms);
}

uint64_t LotSender::lot_id(int lot) const {
  const RestoreOptions& options = context_.options;
  // 0 says that there is no lot.
  return std::max<uint64_t>(xxh3_64(fmt::format("{}/{}/{}", options.id, options.attempt, lot)), 1);
}

}  // namespace sluice
