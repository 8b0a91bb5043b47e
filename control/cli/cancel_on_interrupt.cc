#include "control/cli/cancel_on_interrupt.h"

#include <utility>

namespace sluice {
namespace {

constexpr std::chrono::seconds kArrival{3};

}  // namespace

CancelOnInterrupt::CancelOnInterrupt(Name name, Cancel cancel)
    : name_(std::move(name)),
      cancel_(std::move(cancel)),
      canceller_([this](const std::stop_token& stop) { run(stop); }),
      handler_([this] { set(&interrupted_); },
               [this] {
                 std::unique_lock lock(mutex_);
                 changed_.wait_for(lock, kArrival, [this] { return arrived_; });
               }) {}

void CancelOnInterrupt::run(const std::stop_token& stop) {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return interrupted_; })) return;
  }
  if (const std::string name = name_(stop); !name.empty()) cancel_(name);
  set(&arrived_);
}

void CancelOnInterrupt::set(bool* what) {
  const std::lock_guard lock(mutex_);
  *what = true;
  changed_.notify_all();
}

}  // namespace sluice
