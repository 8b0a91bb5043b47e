// Calls to nodes over gRPC.
#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <chrono>

#include "control/peers/peer_link.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

// gRPC's only reader with a time limit of its own is that of a completion queue.
template <typename Page>
class GrpcPageStream final : public PageStream<Page> {
 public:
  // `prepare(context, queue)` is a stub's PrepareAsync call.
  template <typename Prepare>
  GrpcPageStream(int64_t whole_ms, const Prepare& prepare) {
    set_timeout(context_, whole_ms);
    reader_ = prepare(&context_, &queue_);
    reader_->StartCall(nullptr);
    outstanding_ = true;
  }
  GrpcPageStream(const GrpcPageStream&) = delete;
  GrpcPageStream& operator=(const GrpcPageStream&) = delete;
  ~GrpcPageStream() override {
    end(true);
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  bool read(Page* page, int64_t timeout_ms) override {
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
  const grpc::Status& status() const override { return status_; }

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

class GrpcLink final : public PeerLink {
 public:
  GrpcLink(const Callee& callee, const std::string& address)
      : channel_(make_channel(address, callee)),
        peer_(v1::Peer::NewStub(channel_)),
        serving_(v1::Sluice::NewStub(channel_)) {}

  v1::Peer::StubInterface& peer() override { return *peer_; }
  v1::Sluice::StubInterface& serving() override { return *serving_; }
  bool connect(int64_t timeout_ms) override {
    return channel_->WaitForConnected(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(timeout_ms));
  }
  void cancel(grpc::ClientContext& call) override { call.TryCancel(); }
  std::unique_ptr<PageStream<v1::ScanPage>> scan_slot(const v1::ScanRequest& request,
                                                      int64_t whole_ms) override {
    return std::make_unique<GrpcPageStream<v1::ScanPage>>(
        whole_ms, [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return peer_->PrepareAsyncScanSlot(context, request, queue);
        });
  }
  std::unique_ptr<PageStream<v1::ExportPage>> export_slots(const v1::ExportRequest& request,
                                                           int64_t whole_ms) override {
    return std::make_unique<GrpcPageStream<v1::ExportPage>>(
        whole_ms, [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return serving_->PrepareAsyncExport(context, request, queue);
        });
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Peer::Stub> peer_;
  const std::unique_ptr<v1::Sluice::Stub> serving_;
};

class GrpcDialer final : public PeerDialer {
 public:
  std::unique_ptr<PeerLink> dial(const Callee& callee, const std::string& address) override {
    return std::make_unique<GrpcLink>(callee, address);
  }
};

}  // namespace

PeerDialer& grpc_dialer() {
  static GrpcDialer dialer;
  return dialer;
}

}  // namespace sluice
