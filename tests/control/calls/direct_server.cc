#include "tests/control/calls/direct_server.h"

#include <algorithm>
#include <utility>

#include "base/guard.h"
#include "base/status.h"

namespace sluice {

namespace {
constexpr auto kShutdownGrace = std::chrono::seconds(2);
}

absl::Status DirectServer::start(const std::string& listen) {
  SLUICE_ASSIGN_OR_RETURN(address_, network_.listen(listen, this));
  const std::lock_guard lock(mutex_);
  start_worker();
  return absl::OkStatus();
}

void DirectServer::start_worker() {
  workers_.push_back(guarded_thread("calls to " + address_, [this] { run(); }));
}

void DirectServer::accept(std::shared_ptr<DirectCall> call, DirectNetwork::Work work) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back({std::move(call), std::move(work)});
  changed_.notify_all();
}

void DirectServer::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    --idle_;
    if (waiting_.empty()) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    in_work_.push_back(job.call);
    if (idle_ == 0 && !stopping_) start_worker();
    lock.unlock();
    job.work(services_);
    job.work = {};
    lock.lock();
    in_work_.erase(std::find(in_work_.begin(), in_work_.end(), job.call));
    changed_.notify_all();
  }
}

void DirectServer::stop() {
  network_.leave(this);
  std::vector<std::thread> workers;
  std::vector<std::shared_ptr<DirectCall>> late;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait_for(lock, kShutdownGrace,
                      [this] { return waiting_.empty() && in_work_.empty(); });
    late = in_work_;
    for (const Job& job : waiting_) late.push_back(job.call);
    workers.swap(workers_);
  }
  for (const auto& call : late) {
    call->give_up({grpc::StatusCode::UNAVAILABLE, "broke off the connection"});
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace sluice
