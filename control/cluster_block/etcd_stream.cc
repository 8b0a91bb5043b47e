#include "control/cluster_block/etcd_stream.h"

#include <chrono>
#include <utility>

namespace sluice::cluster_block {
namespace {

// What completes. The addresses are the tags.
constexpr char kStart = 0;
constexpr char kRead = 0;
constexpr char kWrite = 0;
constexpr char kWake = 0;
constexpr char kFinish = 0;

void* tag_of(const char& what) { return const_cast<char*>(&what); }

}  // namespace

EtcdStream::EtcdStream(etcdserverpb::Watch::Stub& stub,
                       std::unique_ptr<grpc::ClientContext> context)
    : context_(std::move(context)), call_(stub.PrepareAsyncWatch(context_.get(), &queue_)) {
  call_->StartCall(tag_of(kStart));
  arm();
}

EtcdStream::~EtcdStream() {
  context_->TryCancel();
  grpc::Status ignored;
  call_->Finish(&ignored, tag_of(kFinish));
  wake();
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) continue;
}

void EtcdStream::arm() {
  const MutexLock lock(mutex_);
  alarm_.emplace();
  alarm_->Set(&queue_, gpr_inf_future(GPR_CLOCK_REALTIME), tag_of(kWake));
}

void EtcdStream::wake() {
  const MutexLock lock(mutex_);
  alarm_->Cancel();
}

void EtcdStream::send(etcdserverpb::WatchRequest request) {
  requests_.push_back(std::move(request));
  write_next();
}

void EtcdStream::write_next() {
  if (!started_ || writing_ || broken_ || requests_.empty()) return;
  writing_ = true;
  call_->Write(requests_.front(), tag_of(kWrite));
}

void EtcdStream::read_next() {
  if (!started_ || reading_ || broken_ || has_response_) return;
  reading_ = true;
  call_->Read(&response_, tag_of(kRead));
}

void EtcdStream::handle(const void* tag, bool ok) {
  if (tag == &kWake) {
    woken_ = true;
    arm();
    return;
  }
  if (!ok) broken_ = true;
  if (tag == &kStart) started_ = ok;
  if (tag == &kRead) {
    reading_ = false;
    has_response_ = ok;
  }
  if (tag == &kWrite) {
    writing_ = false;
    requests_.pop_front();
  }
  write_next();
}

EtcdStream::News EtcdStream::wait(int64_t timeout_ms) {
  const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms);
  has_response_ = false;
  for (;;) {
    if (has_response_) return News::kResponse;
    if (broken_) return News::kBroken;
    if (std::exchange(woken_, false)) return News::kWoken;
    read_next();
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, deadline);
    if (next == grpc::CompletionQueue::TIMEOUT) return News::kTimeout;
    if (next == grpc::CompletionQueue::SHUTDOWN) return News::kBroken;
    handle(tag, ok);
  }
}

}  // namespace sluice::cluster_block
