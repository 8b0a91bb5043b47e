// One question to several nodes at once, answered in whatever order they answer.
//
// Confined to one thread; the calls themselves run on the link's. What is still open when it is
// destroyed is cancelled, which needs no answer from the node.
#ifndef SLUICE_CONTROL_PEERS_PEER_CALLS_H_
#define SLUICE_CONTROL_PEERS_PEER_CALLS_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "control/peers/peers.h"
#include "control/peers/rpc.h"

namespace sluice {

template <typename Request, typename Reply>
class PeerCalls {
 public:
  struct Answer {
    std::shared_ptr<PeerNode> node;
    grpc::Status status;
    Reply reply;
  };

  PeerCalls() = default;
  PeerCalls(const PeerCalls&) = delete;
  PeerCalls& operator=(const PeerCalls&) = delete;
  ~PeerCalls() {
    std::vector<std::shared_ptr<Call>> calls;
    {
      const MutexLock lock(state_->mutex);
      state_->abandoned = true;
      calls = state_->open;
    }
    // Without the lock: a cancelled call may end on this thread.
    for (const auto& call : calls) call->node->link().cancel(call->context);
    calls.clear();
    MutexLock lock(state_->mutex);
    state_->changed.wait(lock,
                         [&]() SLUICE_REQUIRES(state_->mutex) { return state_->open.empty(); });
  }

  // `begin(node, context, request, reply, done)` starts the call through a stub's async().
  template <typename Begin>
  void ask(const std::shared_ptr<PeerNode>& node, Request request, int64_t timeout_ms,
           const Begin& begin) {
    auto call = std::make_shared<Call>();
    call->node = node;
    call->request = std::move(request);
    set_timeout(call->context, timeout_ms);
    {
      const MutexLock lock(state_->mutex);
      state_->open.push_back(call);
    }
    begin(*call->node, &call->context, &call->request, &call->reply,
          [state = state_, call](const grpc::Status& status) mutable {
            state->done(std::move(call), status);
          });
  }

  // The next answer; nullopt when none came in time.
  std::optional<Answer> next(int64_t timeout_ms) {
    MutexLock lock(state_->mutex);
    state_->changed.wait_for(
        lock, std::chrono::milliseconds(timeout_ms),
        [&]() SLUICE_REQUIRES(state_->mutex) { return !state_->answered.empty(); });
    if (state_->answered.empty()) return std::nullopt;
    const std::shared_ptr<Call> call = std::move(state_->answered.front().first);
    const grpc::Status status = std::move(state_->answered.front().second);
    state_->answered.pop_front();
    lock.unlock();
    call->node->note(status);
    return Answer{call->node, status, std::move(call->reply)};
  }

  // Calls whose answer was not taken yet.
  size_t pending() const {
    const MutexLock lock(state_->mutex);
    return state_->open.size() + state_->answered.size();
  }
  bool is_open(std::string_view node) const {
    const MutexLock lock(state_->mutex);
    for (const auto& call : state_->open) {
      if (call->node->name() == node) return true;
    }
    return false;
  }
  // Makes others pass over the nodes that have not answered, for a while.
  void note_late() {
    std::vector<std::shared_ptr<Call>> late;
    {
      const MutexLock lock(state_->mutex);
      late = state_->open;
    }
    for (const auto& call : late) {
      call->node->note({grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"});
    }
  }

 private:
  struct Call {
    grpc::ClientContext context;
    Request request;
    Reply reply;
    std::shared_ptr<PeerNode> node;
  };
  struct State {
    Mutex mutex;
    Condition changed;
    std::vector<std::shared_ptr<Call>> open SLUICE_GUARDED_BY(mutex);
    std::deque<std::pair<std::shared_ptr<Call>, grpc::Status>> answered SLUICE_GUARDED_BY(mutex);
    bool abandoned SLUICE_GUARDED_BY(mutex) = false;

    void done(std::shared_ptr<Call> call, const grpc::Status& status) {
      const MutexLock lock(mutex);
      std::erase(open, call);
      // Its node may be the last holder of a channel, which must not outlive who asked.
      if (abandoned) {
        call.reset();
      } else {
        answered.emplace_back(std::move(call), status);
      }
      changed.notify_all();
    }
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PEER_CALLS_H_
