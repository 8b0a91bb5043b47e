// A folder of the test's own, and what a watch reported so far.
#ifndef SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_HARNESS_H_
#define SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_HARNESS_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "control/cluster_block/cluster_block.h"

namespace sluice {

class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class EventLog {
 public:
  ClusterBlock::WatchCallback callback() {
    return [this](const WatchEvent& event) {
      std::lock_guard lock(mutex_);
      events_.push_back(event);
      changed_.notify_all();
    };
  }
  // Waits, bounded, until the events satisfy `done`.
  bool wait(const std::function<bool(const std::vector<WatchEvent>&)>& done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return done(events_); });
  }
  // Until the newest event of the key is of this kind (and value).
  bool wait_for(const std::string& key, WatchEvent::Kind kind, const std::string& value = "") {
    return wait([&](const std::vector<WatchEvent>& events) {
      for (auto event = events.rbegin(); event != events.rend(); ++event) {
        if (event->key == key) return event->kind == kind && event->value == value;
      }
      return false;
    });
  }
  std::vector<WatchEvent> events() const {
    std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<WatchEvent> events_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_CONTROL_CLUSTER_BLOCK_HARNESS_H_
