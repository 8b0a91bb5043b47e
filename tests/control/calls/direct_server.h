// The threads of one node that answer calls. Internal to direct_calls.
#ifndef SLUICE_TESTS_CONTROL_CALLS_DIRECT_SERVER_H_
#define SLUICE_TESTS_CONTROL_CALLS_DIRECT_SERVER_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/control/calls/direct_call.h"
#include "tests/control/calls/direct_calls.h"

namespace sluice {

// Thread-safe. Has as many threads as calls are in work at a time, and one more: each is started by
// one before it, so that they all belong to the node.
class DirectServer final : public CallServer {
 public:
  DirectServer(DirectNetwork& network, const NodeServices& services)
      : network_(network), services_(services) {}
  ~DirectServer() override { stop(); }
  absl::Status start(const std::string& listen);

  const std::string& address() const override { return address_; }
  void set_serving() override {}
  void stop() override;

  void accept(std::shared_ptr<DirectCall> call, DirectNetwork::Work work);

 private:
  struct Job {
    std::shared_ptr<DirectCall> call;
    DirectNetwork::Work work;
  };
  // Under the lock.
  void start_worker();
  void run();

  DirectNetwork& network_;
  const NodeServices services_;
  std::string address_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> waiting_;
  std::vector<std::shared_ptr<DirectCall>> in_work_;
  std::vector<std::thread> workers_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CALLS_DIRECT_SERVER_H_
