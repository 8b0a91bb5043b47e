// What an interrupt does to a command that waits for a job of the cluster.
#ifndef SLUICE_CONTROL_CLI_CANCEL_ON_INTERRUPT_H_
#define SLUICE_CONTROL_CLI_CANCEL_ON_INTERRUPT_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "control/cli/progress.h"

namespace sluice {

// The first interrupt cancels the job, which may not have told its name yet; the job's own end is
// then waited for as always. The second one gives the cancellation time to arrive.
class CancelOnInterrupt {
 public:
  // `name` waits for what the job is called; empty when the token says to stop first.
  using Name = std::function<std::string(std::stop_token)>;
  // What fails to be cancelled shows in how the job ends.
  using Cancel = std::function<void(const std::string& name)>;
  CancelOnInterrupt(Name name, Cancel cancel);

 private:
  void run(const std::stop_token& stop);
  void set(bool* what);

  const Name name_;
  const Cancel cancel_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool interrupted_ = false;
  bool arrived_ = false;
  std::jthread canceller_;
  Interrupts::Handler handler_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_CANCEL_ON_INTERRUPT_H_
