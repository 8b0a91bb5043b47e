#include "control/cluster_block/etcd_stream.h"

#include <utility>

namespace sluice::cluster_block {

EtcdStream::EtcdStream(etcdserverpb::Watch::Stub& stub,
                       std::unique_ptr<grpc::ClientContext> context, std::function<void()> changed)
    : context_(std::move(context)), changed_(std::move(changed)) {
  stub.async()->Watch(context_.get(), this);
  // Reads and writes begin outside of gRPC's own calls.
  AddHold();
  StartRead(&response_);
  StartCall();
}

EtcdStream::~EtcdStream() {
  context_->TryCancel();
  RemoveHold();
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [this] { return done_; });
}

void EtcdStream::send(etcdserverpb::WatchRequest request) {
  const etcdserverpb::WatchRequest* first = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (broken_) return;
    requests_.push_back(std::move(request));
    if (requests_.size() == 1) first = &requests_.front();
  }
  if (first != nullptr) StartWrite(first);
}

std::optional<etcdserverpb::WatchResponse> EtcdStream::take() {
  std::optional<etcdserverpb::WatchResponse> taken;
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(has_response_, false)) return taken;
    taken.emplace();
    taken->Swap(&response_);
  }
  StartRead(&response_);
  return taken;
}

bool EtcdStream::is_broken() const {
  const std::lock_guard lock(mutex_);
  return broken_;
}

void EtcdStream::OnReadDone(bool ok) {
  {
    const std::lock_guard lock(mutex_);
    (ok ? has_response_ : broken_) = true;
  }
  changed_();
}

void EtcdStream::OnWriteDone(bool ok) {
  const etcdserverpb::WatchRequest* next = nullptr;
  {
    const std::lock_guard lock(mutex_);
    requests_.pop_front();
    if (!ok) {
      broken_ = true;
      requests_.clear();
    }
    if (!requests_.empty()) next = &requests_.front();
  }
  if (next != nullptr) StartWrite(next);
  if (!ok) changed_();
}

void EtcdStream::OnDone(const grpc::Status&) {
  // The object may go as soon as the lock is free.
  const std::lock_guard lock(mutex_);
  done_ = true;
  done_changed_.notify_all();
}

}  // namespace sluice::cluster_block
