#include "dataplane/pipeline/write_server.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/block/block.h"
#include "dataplane/pipeline/record_writes.h"
#include "dataplane/pipeline/request_blocks.h"
#include "dataplane/pipeline/request_client.h"

namespace sluice {
namespace {

constexpr int64_t kReplyTimeoutMs = 10'000;

bool same_replicas(const SlotRoute& a, const SlotRoute& b) {
  return a.replicas.size() == b.replicas.size() &&
         std::all_of(a.replicas.begin(), a.replicas.end(), [&](const SlotRoute::Replica& mine) {
           return std::any_of(b.replicas.begin(), b.replicas.end(),
                              [&](const auto& other) { return other.node == mine.node; });
         });
}

class WriteServerImpl final : public WriteServer, public StreamHandler {
 public:
  WriteServerImpl(Exchange& exchange, Store& store, SlotRouter& router, const Options& options)
      : exchange_(exchange),
        store_(store),
        router_(router),
        options_(options),
        lots_(store, exchange.clock(), options.lots) {}
  ~WriteServerImpl() override;
  absl::Status start();
  Counters counters() const override;

  absl::StatusOr<Admission> admit(const Hello& hello) override;
  void accepted(std::shared_ptr<Stream> stream) override;

 private:
  struct Forward {
    SlotRoute::Replica replica;
    absl::StatusOr<RequestClient::CallPtr> call;
  };

  void run(Inbox& inbox, bool forwards);
  void handle(Inbox::Delivery& delivery, bool forwarded);
  WriteReply carry_out(Message& message, bool forwarded);
  // A data writing request that this node may carry out.
  struct Request {
    SlotRoute route;  // of every slot
    std::vector<RequestBlock> blocks;
  };
  absl::StatusOr<Request> check(const Message& message);
  absl::StatusOr<SlotRoute> route_here(uint32_t slot, uint64_t epoch);
  void apply(const Request& request, const Envelope& envelope, WriteReply* reply);
  absl::StatusOr<uint64_t> apply_or_keep(const RequestBlock& block, const Envelope& envelope,
                                         WriteReply* reply);
  void end_lot(Inbox::Delivery& delivery);
  void answer(Stream& stream, const Envelope& request, const std::string& reply);
  std::vector<Forward> forward(const SlotRoute& route, Message& message);
  void collect(std::vector<Forward>& forwards, WriteReply* reply);

  Exchange& exchange_;
  Store& store_;
  SlotRouter& router_;
  const Options options_;
  const std::shared_ptr<Inbox> write_inbox_ = Inbox::create();
  const std::shared_ptr<Inbox> forward_inbox_ = Inbox::create();
  std::unique_ptr<RequestClient> peers_;
  std::unique_ptr<RecordWrites> records_;
  WriteLots lots_;
  bool serving_write_ = false;
  bool serving_forward_ = false;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;

  mutable Mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Stream>> streams_ SLUICE_GUARDED_BY(mutex_);  // by number
  Counters counters_ SLUICE_GUARDED_BY(mutex_);
};

absl::Status WriteServerImpl::start() {
  if (options_.write_workers == 0 || options_.forward_workers == 0) {
    return invalid_argument("write server: no workers");
  }
  RequestClient::Options peers;
  peers.kind = StreamKind::kForward;
  peers.tick_ms = options_.tick_ms;
  peers_ = std::make_unique<RequestClient>(exchange_, peers);
  RecordWrites::Options records;
  records.node = options_.node;
  records.quorum = options_.write_quorum;
  records.on_answer = options_.on_answer;
  records_ = std::make_unique<RecordWrites>(store_, router_, *peers_, records);
  for (size_t i = 0; i < options_.write_workers; ++i) {
    threads_.emplace_back([this] { run(*write_inbox_, false); });
  }
  for (size_t i = 0; i < options_.forward_workers; ++i) {
    threads_.emplace_back([this] { run(*forward_inbox_, true); });
  }
  SLUICE_RETURN_IF_ERROR(exchange_.serve(StreamKind::kWrite, "", this));
  serving_write_ = true;
  SLUICE_RETURN_IF_ERROR(exchange_.serve(StreamKind::kForward, "", this));
  serving_forward_ = true;
  return absl::OkStatus();
}

WriteServerImpl::~WriteServerImpl() {
  if (serving_write_) exchange_.withdraw(StreamKind::kWrite, "");
  if (serving_forward_) exchange_.withdraw(StreamKind::kForward, "");
  stopping_ = true;
  write_inbox_->shut_down();
  forward_inbox_->shut_down();
  for (std::thread& thread : threads_) thread.join();
  for (const auto& [number, stream] : streams_) stream->close(absl::OkStatus());
  streams_.clear();
  records_.reset();
  peers_.reset();
}

WriteServer::Counters WriteServerImpl::counters() const {
  const MutexLock lock(mutex_);
  return counters_;
}

absl::StatusOr<StreamHandler::Admission> WriteServerImpl::admit(const Hello& hello) {
  const bool forwards = hello.kind == StreamKind::kForward;
  Admission admission;
  admission.receive_blocks =
      forwards ? options_.forward_receive_blocks : options_.write_receive_blocks;
  admission.inbox = forwards ? forward_inbox_ : write_inbox_;
  return admission;
}

void WriteServerImpl::accepted(std::shared_ptr<Stream> stream) {
  const MutexLock lock(mutex_);
  const uint64_t number = stream->number();
  streams_.emplace(number, std::move(stream));
}

void WriteServerImpl::run(Inbox& inbox, bool forwards) {
  Inbox::Delivery delivery;
  while (!stopping_) {
    lots_.tick();
    if (!inbox.take(options_.tick_ms, &delivery)) continue;
    if (delivery.closed) {
      const MutexLock lock(mutex_);
      streams_.erase(delivery.stream->number());
    } else {
      handle(delivery, forwards);
    }
    delivery = {};
  }
}

void WriteServerImpl::handle(Inbox::Delivery& delivery, bool forwarded) {
  const Envelope envelope = delivery.message.envelope;
  if (envelope.kind == MessageKind::kStreamEnd) return;
  if (envelope.kind == MessageKind::kLotEnd) {
    end_lot(delivery);
    return;
  }
  if (envelope.kind == MessageKind::kRecordWrite) {
    const std::string reply =
        forwarded ? records_->apply(delivery.message) : records_->coordinate(delivery.message);
    delivery.message.buffer.reset();
    answer(*delivery.stream, envelope, reply);
    return;
  }
  if (envelope.kind != MessageKind::kWriteRequest) {
    delivery.stream->close(
        data_loss("a message of kind {} where requests are due", static_cast<int>(envelope.kind)));
    return;
  }
  const WriteReply reply = carry_out(delivery.message, forwarded);
  delivery.message.buffer.reset();
  {
    const MutexLock lock(mutex_);
    ++(forwarded ? counters_.forwarded : counters_.requests);
    counters_.records_changed += reply.changed;
  }
  answer(*delivery.stream, envelope, reply.encode());
}

void WriteServerImpl::answer(Stream& stream, const Envelope& request, const std::string& reply) {
  Envelope envelope;
  envelope.kind = MessageKind::kWriteReply;
  envelope.slot = request.slot;
  envelope.attempt = request.attempt;
  envelope.sequence = request.sequence;
  absl::Status status = options_.gate ? options_.gate() : absl::OkStatus();
  if (status.ok()) status = stream.send_control(envelope, reply, kReplyTimeoutMs);
  if (!status.ok()) stream.close(status);
}

void WriteServerImpl::end_lot(Inbox::Delivery& delivery) {
  const absl::StatusOr<LotEnd> end = LotEnd::decode(as_string_view(delivery.message.payload()));
  if (!end.ok()) {
    delivery.stream->close(end.status());
    return;
  }
  const Envelope request = delivery.message.envelope;
  delivery.message.buffer.reset();
  lots_.end(
      request.lot, *end,
      [this, request, stream = delivery.stream](const absl::StatusOr<WriteLots::Result>& result) {
        WriteReply reply;
        if (result.ok()) {
          reply.holders.push_back({options_.node, store_.store_id()});
          reply.kept = result->kept_different;
        } else {
          reply.failures.push_back({options_.node, result.status()});
        }
        answer(*stream, request, reply.encode());
      });
}

// Whether this node may carry the request out: nothing is forwarded before this is known.
absl::StatusOr<WriteServerImpl::Request> WriteServerImpl::check(const Message& message) {
  const Envelope& envelope = message.envelope;
  if (envelope.attempt > router_.epoch()) router_.refresh();
  Request request;
  // Each replica's store checks the rest of the blocks before it changes anything.
  SLUICE_ASSIGN_OR_RETURN(request.blocks, split_request(message.payload(), router_.slot_bits()));
  if (request.blocks.front().slot != envelope.slot) {
    return data_loss("an envelope for slot {} around a block of slot {}", envelope.slot,
                     request.blocks.front().slot);
  }
  SLUICE_ASSIGN_OR_RETURN(request.route, route_here(envelope.slot, envelope.attempt));
  for (const RequestBlock& block : request.blocks) {
    if (block.slot == envelope.slot) continue;
    SLUICE_ASSIGN_OR_RETURN(const SlotRoute route, route_here(block.slot, envelope.attempt));
    if (same_replicas(route, request.route)) continue;
    return failed_precondition("slots {} and {} of one request have different replicas",
                               envelope.slot, block.slot);
  }
  return request;
}

absl::StatusOr<SlotRoute> WriteServerImpl::route_here(uint32_t slot, uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(SlotRoute route, router_.route(slot));
  if (route.epoch != epoch) {
    return failed_precondition("stale epoch: {} in the request, {} here", epoch, route.epoch);
  }
  if (std::none_of(route.replicas.begin(), route.replicas.end(),
                   [&](const auto& replica) { return replica.node == options_.node; })) {
    return failed_precondition("{} does not hold slot {} in epoch {}", options_.node, slot,
                               route.epoch);
  }
  return route;
}

WriteReply WriteServerImpl::carry_out(Message& message, bool forwarded) {
  WriteReply reply;
  const absl::StatusOr<Request> request = check(message);
  if (!request.ok()) {
    reply.failures.push_back({options_.node, request.status()});
    const MutexLock lock(mutex_);
    ++counters_.refused;
    return reply;
  }
  std::vector<Forward> forwards;
  if (!forwarded) forwards = forward(request->route, message);
  apply(*request, message.envelope, &reply);
  collect(forwards, &reply);
  return reply;
}

void WriteServerImpl::apply(const Request& request, const Envelope& envelope, WriteReply* reply) {
  uint64_t keeping = 0;
  for (const RequestBlock& block : request.blocks) {
    absl::StatusOr<uint64_t> token = apply_or_keep(block, envelope, reply);
    // The reply names one token, which has to stand for all blocks that are kept.
    if (token.ok() && *token != 0 && keeping != 0 && *token != keeping) {
      token = aborted("the lot was committed between two blocks of one request: send them again");
    }
    if (!token.ok()) {
      reply->failures.push_back({options_.node, token.status()});
      return;
    }
    keeping = std::max(keeping, *token);
  }
  reply->holders.push_back({options_.node, store_.store_id(), keeping});
  if (keeping == 0) return;
  const MutexLock lock(mutex_);
  ++counters_.kept;
}

// The token of the lot that keeps the block; 0: it is durable.
absl::StatusOr<uint64_t> WriteServerImpl::apply_or_keep(const RequestBlock& block,
                                                        const Envelope& envelope,
                                                        WriteReply* reply) {
  if ((envelope.flags & Envelope::kKeep) != 0) {
    Stage::Work work(options_.keep);
    const absl::StatusOr<uint64_t> token = lots_.add(envelope.lot, block.bytes);
    if (token.ok()) work.add(block.bytes.size());
    // Without memory for it, the block is made durable on its own.
    if (!absl::IsResourceExhausted(token.status())) return token;
  }
  SLUICE_ASSIGN_OR_RETURN(
      const Store::BlockResult result,
      store_.apply_block(block.bytes, {envelope.version_override, envelope.version_node}));
  reply->changed += result.changed;
  reply->kept_newer += result.kept_newer;
  reply->kept_equal += result.kept_equal;
  if (const KeptRecords kept = result.kept(); kept.any()) reply->kept[block.slot].add(kept);
  return 0;
}

std::vector<WriteServerImpl::Forward> WriteServerImpl::forward(const SlotRoute& route,
                                                               Message& message) {
  // One sequence for all replicas: they share the buffer, so they share the envelope in it.
  Envelope envelope;
  envelope.kind = MessageKind::kWriteRequest;
  envelope.slot = message.envelope.slot;
  envelope.flags = message.envelope.flags;
  envelope.lot = message.envelope.lot;
  envelope.version_override = message.envelope.version_override;
  envelope.version_node = message.envelope.version_node;
  envelope.attempt = message.envelope.attempt;
  envelope.payload_bytes = message.envelope.payload_bytes;
  envelope.sequence = peers_->next_sequence();
  const uint32_t bytes = Envelope::seal(envelope, message.buffer);
  std::vector<Forward> forwards;
  for (const SlotRoute::Replica& replica : route.replicas) {
    if (replica.node == options_.node) continue;
    forwards.push_back({replica, peers_->begin(replica, message.buffer.share(), bytes,
                                               envelope.sequence, options_.forward_timeout_ms)});
  }
  return forwards;
}

void WriteServerImpl::collect(std::vector<Forward>& forwards, WriteReply* reply) {
  // One deadline for all of them: the client waits for the sum.
  const int64_t deadline = exchange_.clock().monotonic_ns() + options_.forward_timeout_ms * kMs;
  for (Forward& forward : forwards) {
    absl::Status status = forward.call.status();
    if (status.ok()) {
      const int64_t left_ms =
          std::max<int64_t>((deadline - exchange_.clock().monotonic_ns()) / kMs, 0);
      const absl::StatusOr<WriteReply> answer =
          WriteReply::of(peers_->finish(*forward.call, left_ms));
      status = answer.status();
      if (answer.ok()) {
        for (const auto& [slot, kept] : answer->kept) {
          reply->kept[slot].merge(kept);
        }
        for (const WriteReply::Failure& failure : answer->failures) {
          reply->failures.push_back({forward.replica.node, failure.status});
        }
        // One that names itself otherwise is not the replica that was meant.
        for (const WriteReply::Holder& holder : answer->holders) {
          if (holder.node == forward.replica.node) reply->holders.push_back(holder);
        }
      }
    }
    if (!status.ok()) reply->failures.push_back({forward.replica.node, status});
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<WriteServer>> WriteServer::start(Exchange& exchange, Store& store,
                                                                SlotRouter& router,
                                                                const Options& options) {
  auto server = std::make_unique<WriteServerImpl>(exchange, store, router, options);
  SLUICE_RETURN_IF_ERROR(server->start());
  return server;
}

}  // namespace sluice
