// A server's stream of pages, each of which is waited for a bounded time: a node that stands still
// costs its reader one wait, however long the whole stream may take.
//
// Confined to one thread.
#ifndef SLUICE_CONTROL_PEERS_PAGE_STREAM_H_
#define SLUICE_CONTROL_PEERS_PAGE_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "control/peers/rpc.h"

namespace sluice {

template <typename Page>
class PageStream {
 public:
  // `prepare(context, queue)` is a stub's PrepareAsync call.
  template <typename Prepare>
  PageStream(int64_t whole_ms, const Prepare& prepare) {
    set_timeout(context_, whole_ms);
    reader_ = prepare(&context_, &queue_);
    reader_->StartCall(nullptr);
    outstanding_ = true;
  }
  PageStream(const PageStream&) = delete;
  PageStream& operator=(const PageStream&) = delete;
  ~PageStream() {
    end(true);
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  // False when there is no further page: status() then says why. After `timeout_ms` without one the
  // stream is cancelled, with DEADLINE_EXCEEDED.
  bool read(Page* page, int64_t timeout_ms) {
    if (ended_) return false;
    const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms);
    if (!started_) {
      if (!wait(deadline)) return false;
      started_ = true;
    }
    reader_->Read(page, nullptr);
    outstanding_ = true;
    return wait(deadline);
  }
  const grpc::Status& status() const { return status_; }

 private:
  // Whether the outstanding operation succeeded in time; otherwise the stream has ended.
  bool wait(std::chrono::system_clock::time_point deadline) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, deadline);
    if (next == grpc::CompletionQueue::TIMEOUT) {
      end(true);
      status_ = {grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"};
      return false;
    }
    outstanding_ = false;
    if (!ok) end(false);
    return ok;
  }

  void end(bool cancel) {
    if (ended_) return;
    ended_ = true;
    if (cancel) context_.TryCancel();
    void* tag = nullptr;
    bool ok = false;
    if (outstanding_) queue_.Next(&tag, &ok);
    outstanding_ = false;
    reader_->Finish(&status_, nullptr);
    queue_.Next(&tag, &ok);
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::ClientAsyncReader<Page>> reader_;
  grpc::Status status_;
  bool outstanding_ = false;
  bool started_ = false;
  bool ended_ = false;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PAGE_STREAM_H_
