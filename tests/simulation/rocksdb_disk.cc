#include "tests/simulation/rocksdb_disk.h"

#include <fcntl.h>
#include <rocksdb/file_system.h>
#include <rocksdb/system_clock.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"

namespace sluice::simulation {
namespace {

using rocksdb::IOStatus;

class SilentLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
  size_t GetLogFileSize() const override { return 0; }
};

class HeldLock final : public rocksdb::FileLock {
 public:
  explicit HeldLock(UniqueFd fd) : fd_(std::move(fd)) {}

 private:
  const UniqueFd fd_;
};

class DiskFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  DiskFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "DiskFileSystem"; }

  IOStatus LockFile(const std::string& path, const rocksdb::IOOptions&, rocksdb::FileLock** lock,
                    rocksdb::IODebugContext*) override {
    *lock = nullptr;
    UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd) return IOStatus::IOError("opening a lock", path);
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return IOStatus::IOError("lock held", path);
    *lock = new HeldLock(std::move(fd));
    return IOStatus::OK();
  }
  IOStatus UnlockFile(rocksdb::FileLock* lock, const rocksdb::IOOptions&,
                      rocksdb::IODebugContext*) override {
    delete static_cast<HeldLock*>(lock);
    return IOStatus::OK();
  }
  IOStatus NewLogger(const std::string&, const rocksdb::IOOptions&,
                     std::shared_ptr<rocksdb::Logger>* logger, rocksdb::IODebugContext*) override {
    *logger = std::make_shared<SilentLogger>();
    return IOStatus::OK();
  }
  // RocksDB goes on without.
  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           rocksdb::IODebugContext* context) override {
    if (path.find("/OPTIONS-") != path.npos) return IOStatus::NotSupported("no options are kept");
    return target()->NewWritableFile(path, options, file, context);
  }
};

// Background work of one priority: threads that begin with the first work there is for them.
class Pool {
 public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void add(void (*function)(void*), void* argument, void* tag, void (*dropped)(void*)) {
    {
      const std::lock_guard lock(mutex_);
      work_.push_back({function, argument, tag, dropped});
      start_threads_locked();
    }
    changed_.notify_one();
  }
  int drop(void* tag) {
    std::vector<Work> dropped;
    {
      const std::lock_guard lock(mutex_);
      const auto keeps = [tag](const Work& work) { return work.tag != tag; };
      std::copy_if(work_.begin(), work_.end(), std::back_inserter(dropped),
                   [&](const Work& work) { return !keeps(work); });
      std::erase_if(work_, [&](const Work& work) { return !keeps(work); });
    }
    for (const Work& work : dropped) {
      if (work.dropped != nullptr) work.dropped(work.argument);
    }
    return static_cast<int>(dropped.size());
  }
  unsigned length() const {
    const std::lock_guard lock(mutex_);
    return static_cast<unsigned>(work_.size());
  }
  int limit() const {
    const std::lock_guard lock(mutex_);
    return limit_;
  }
  // Threads that there are stay.
  void set_limit(int limit) {
    const std::lock_guard lock(mutex_);
    limit_ = limit;
    start_threads_locked();
  }
  void raise_limit(int limit) {
    const std::lock_guard lock(mutex_);
    limit_ = std::max(limit_, limit);
    start_threads_locked();
  }

 private:
  struct Work {
    void (*function)(void*);
    void* argument;
    void* tag;
    void (*dropped)(void*);
  };

  void start_threads_locked() {
    while (idle_ + starting_ < work_.size() && threads_.size() < static_cast<size_t>(limit_)) {
      ++starting_;
      threads_.emplace_back([this] { run(); });
    }
  }
  void run() {
    std::unique_lock lock(mutex_);
    --starting_;
    for (;;) {
      ++idle_;
      changed_.wait(lock, [this] { return stopping_ || !work_.empty(); });
      --idle_;
      if (stopping_) return;
      const Work work = work_.front();
      work_.pop_front();
      lock.unlock();
      work.function(work.argument);
      lock.lock();
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> work_;
  std::vector<std::thread> threads_;
  int limit_ = 1;
  size_t idle_ = 0;
  size_t starting_ = 0;
  bool stopping_ = false;
};

class DiskEnv final : public rocksdb::EnvWrapper {
 public:
  explicit DiskEnv(const std::shared_ptr<rocksdb::FileSystem>& files)
      : EnvWrapper(rocksdb::NewCompositeEnv(files)) {
    file_system_ = files;
    system_clock_ = rocksdb::SystemClock::Default();
  }
  const char* Name() const override { return "DiskEnv"; }

  void Schedule(void (*function)(void*), void* argument, Priority priority, void* tag,
                void (*dropped)(void*)) override {
    pool(priority).add(function, argument, tag, dropped);
  }
  int UnSchedule(void* tag, Priority priority) override { return pool(priority).drop(tag); }
  unsigned int GetThreadPoolQueueLen(Priority priority) const override {
    return pool(priority).length();
  }
  void SetBackgroundThreads(int count, Priority priority) override {
    pool(priority).set_limit(count);
  }
  int GetBackgroundThreads(Priority priority) override { return pool(priority).limit(); }
  void IncBackgroundThreadsIfNeeded(int count, Priority priority) override {
    pool(priority).raise_limit(count);
  }
  void LowerThreadPoolIOPriority(Priority) override {}
  void LowerThreadPoolCPUPriority(Priority) override {}
  rocksdb::Status LowerThreadPoolCPUPriority(Priority, rocksdb::CpuPriority) override {
    return rocksdb::Status::OK();
  }
  int ReserveThreads(int, Priority) override { return 0; }
  int ReleaseThreads(int, Priority) override { return 0; }
  void StartThread(void (*function)(void*), void* argument) override {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back(function, argument);
  }
  void WaitForJoin() override {
    std::vector<std::thread> threads;
    {
      const std::lock_guard lock(mutex_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }
  ~DiskEnv() override { DiskEnv::WaitForJoin(); }

 private:
  Pool& pool(Priority priority) const { return pools_[priority]; }

  mutable std::array<Pool, Priority::TOTAL> pools_;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<rocksdb::Env> make_rocksdb_env() {
  return std::make_unique<DiskEnv>(std::make_shared<DiskFileSystem>());
}

}  // namespace sluice::simulation
