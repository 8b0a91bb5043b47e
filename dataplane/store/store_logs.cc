#include "dataplane/store/store_logs.h"

#include <rocksdb/file_system.h>
#include <rocksdb/system_clock.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/store/store_db.h"

namespace sluice {

using rocksdb::IOStatus;

// One log. Guarded by its chain.
class LogFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  LogFile(std::unique_ptr<rocksdb::FSWritableFile> file,
          std::unique_ptr<rocksdb::FSDirectory> directory, std::shared_ptr<LogChain> chain)
      : FSWritableFileOwnerWrapper(std::move(file)),
        chain_(std::move(chain)),
        directory_(std::move(directory)) {}
  ~LogFile() override;

  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions&,
                  rocksdb::IODebugContext*) override;
  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                  const rocksdb::DataVerificationInfo&, rocksdb::IODebugContext* context) override {
    return Append(data, options, context);
  }
  IOStatus Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) override;
  IOStatus Close(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override;

 private:
  friend class LogChain;

  // At its place, whatever an earlier try has left there.
  IOStatus write(std::string_view data) {
    IOStatus status =
        target()->PositionedAppend(to_slice(data), size_, rocksdb::IOOptions(), nullptr);
    if (status.ok()) size_ += data.size();
    return status;
  }

  // What has been written, and the first time the file's name.
  IOStatus sync_target() {
    IOStatus status = target()->Sync(rocksdb::IOOptions(), nullptr);
    if (!status.ok() || directory_ == nullptr) return status;
    status = directory_->Fsync(rocksdb::IOOptions(), nullptr);
    if (status.ok()) directory_.reset();
    return status;
  }

  const std::shared_ptr<LogChain> chain_;
  std::unique_ptr<rocksdb::FSDirectory> directory_;  // until it has the name durably
  uint64_t size_ = 0;
  uint64_t durable_ = 0;  // of these
  std::string lacking_;   // what follows them
};

// The logs that RocksDB has open, in the order in which they were begun.
class LogChain {
 public:
  void add(LogFile* file) {
    const MutexLock lock(mutex_);
    files_.push_back(file);
  }
  void remove(const LogFile* file) {
    MutexLock lock(mutex_);
    wait_for_sync(lock);
    std::erase(files_, file);
    closed_incomplete_ = closed_incomplete_ || !file->lacking_.empty();
  }
  bool closed_incomplete() const {
    const MutexLock lock(mutex_);
    return closed_incomplete_;
  }
  void are_in_tables() {
    const MutexLock lock(mutex_);
    closed_incomplete_ = false;
    if (!lacks_locked()) full_ = IOStatus::OK();
  }

  IOStatus check() const {
    const MutexLock lock(mutex_);
    return failed_.ok() ? full_ : failed_;
  }

  IOStatus complete() {
    MutexLock lock(mutex_);
    wait_for_sync(lock);
    for (LogFile* const file : files_) {
      if (!failed_.ok()) return failed_;
      if (IOStatus status = file->write(file->lacking_); !status.ok()) return status;
      file->lacking_.clear();
      if (IOStatus status = sync_locked(*file); !status.ok()) return status;
    }
    if (!closed_incomplete_) full_ = IOStatus::OK();
    return failed_;
  }

  // Called before a log begins.
  IOStatus make_durable() {
    MutexLock lock(mutex_);
    wait_for_sync(lock);
    if (!failed_.ok()) return failed_;
    // What is appended to the next one waits for what the others lack.
    if (files_.empty() || !full_.ok()) return IOStatus::OK();
    LogFile& last = *files_.back();
    return last.durable_ == last.size_ ? IOStatus::OK() : sync_locked(last);
  }

  IOStatus append(LogFile& file, std::string_view data) {
    const MutexLock lock(mutex_);
    if (!failed_.ok()) return IOStatus::OK();
    if (full_.ok()) {
      IOStatus status = file.write(data);
      if (status.ok()) return status;
      (status.IsNoSpace() ? full_ : failed_) = std::move(status);
    }
    if (failed_.ok()) file.lacking_.append(data);
    return IOStatus::OK();
  }

  // Called before a table begins: of one family of what the log should have of all.
  IOStatus check_closed() const {
    const MutexLock lock(mutex_);
    if (!failed_.ok()) return failed_;
    for (const LogFile* const file : files_) {
      if (!file->lacking_.empty() && file != files_.back()) return full_;
    }
    return IOStatus::OK();
  }

  void sync(LogFile& file) {
    MutexLock lock(mutex_);
    wait_for_sync(lock);
    sync_beside_writes(file);
  }

  IOStatus sync() {
    MutexLock lock(mutex_);
    wait_for_sync(lock);
    // Those before the last one are durable, unless the disk was full when it began.
    while (failed_.ok() && full_.ok()) {
      const auto at = std::find_if(files_.begin(), files_.end(), [](const LogFile* file) {
        return file->durable_ < file->size_;
      });
      if (at == files_.end()) break;
      const bool is_last = *at == files_.back();
      sync_beside_writes(**at);
      if (is_last) break;
      wait_for_sync(lock);
    }
    return failed_.ok() ? full_ : failed_;
  }

 private:
  bool lacks_locked() const SLUICE_REQUIRES(mutex_) {
    return std::any_of(files_.begin(), files_.end(),
                       [](const LogFile* file) { return !file->lacking_.empty(); });
  }
  // One at a time, and no file goes meanwhile.
  void wait_for_sync(MutexLock& lock) SLUICE_REQUIRES(mutex_) {
    synced_.wait(lock, [this]() SLUICE_REQUIRES(mutex_) { return !syncing_; });
  }
  void sync_beside_writes(LogFile& file) SLUICE_REQUIRES(mutex_) {
    if (!failed_.ok()) return;
    const uint64_t covered = file.size_;
    syncing_ = true;
    mutex_.unlock();
    const IOStatus status = file.sync_target();
    mutex_.lock();
    syncing_ = false;
    synced_.notify_all();
    note_sync_locked(file, covered, status);
  }
  IOStatus sync_locked(LogFile& file) SLUICE_REQUIRES(mutex_) {
    IOStatus status = file.sync_target();
    note_sync_locked(file, file.size_, status);
    return status;
  }
  void note_sync_locked(LogFile& file, uint64_t covered, const IOStatus& status)
      SLUICE_REQUIRES(mutex_) {
    if (status.ok()) {
      file.durable_ = std::max(file.durable_, covered);
    } else {
      failed_ = status;  // for good: the kernel may have dropped what it could not write
    }
  }

  mutable Mutex mutex_;
  Condition synced_;
  bool syncing_ SLUICE_GUARDED_BY(mutex_) = false;  // beside writes
  std::vector<LogFile*> files_ SLUICE_GUARDED_BY(mutex_);
  IOStatus full_ SLUICE_GUARDED_BY(mutex_);  // why something is lacking, or OK
  bool closed_incomplete_ SLUICE_GUARDED_BY(mutex_) = false;
  // Of a sync, or of a write to a disk that is not full.
  IOStatus failed_ SLUICE_GUARDED_BY(mutex_);
};

LogFile::~LogFile() { chain_->remove(this); }

IOStatus LogFile::Append(const rocksdb::Slice& data, const rocksdb::IOOptions&,
                         rocksdb::IODebugContext*) {
  return chain_->append(*this, to_view(data));
}

IOStatus LogFile::Sync(const rocksdb::IOOptions&, rocksdb::IODebugContext*) {
  chain_->sync(*this);
  return IOStatus::OK();
}

IOStatus LogFile::Close(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) {
  chain_->remove(this);
  return target()->Close(options, context);
}

namespace {

class LogFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  LogFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::string directory,
                std::shared_ptr<LogChain> chain)
      : FileSystemWrapper(base), directory_(std::move(directory)), chain_(std::move(chain)) {}
  const char* Name() const override { return "StoreLogs"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           rocksdb::IODebugContext* context) override {
    const std::string of = path.substr(0, path.rfind('/'));
    const bool is_own = of == directory_;  // not a checkpoint's
    const bool is_log = is_own && path.ends_with(".log");
    const bool is_table = is_own && path.ends_with(".sst");
    IOStatus status;
    if (is_log) status = chain_->make_durable();
    if (is_table) status = chain_->check_closed();
    if (!status.ok()) return status;
    status = target()->NewWritableFile(path, options, file, context);
    if (status.ok() && is_log) {
      std::unique_ptr<rocksdb::FSDirectory> directory;
      status = target()->NewDirectory(of, {}, &directory, context);
      if (!status.ok()) return status;
      auto log = std::make_unique<LogFile>(std::move(*file), std::move(directory), chain_);
      chain_->add(log.get());
      *file = std::move(log);
    }
    return status;
  }

 private:
  const std::string directory_;
  const std::shared_ptr<LogChain> chain_;
};

// Threads and time are those of `base`.
class LogEnv final : public rocksdb::EnvWrapper {
 public:
  LogEnv(rocksdb::Env* base, std::string directory, const std::shared_ptr<LogChain>& chain)
      : EnvWrapper(base) {
    file_system_ =
        std::make_shared<LogFileSystem>(base->GetFileSystem(), std::move(directory), chain);
    system_clock_ = base->GetSystemClock();
  }
  const char* Name() const override { return "StoreLogs"; }
};

}  // namespace

StoreLogs::StoreLogs(rocksdb::Env* base, std::string directory)
    : chain_(std::make_shared<LogChain>()),
      env_(std::make_unique<LogEnv>(base, std::move(directory), chain_)) {}

StoreLogs::~StoreLogs() = default;

absl::Status StoreLogs::lacks_nothing() const {
  return rocksdb_status(chain_->check(), "writing the write-ahead log");
}

bool StoreLogs::closed_incomplete() const { return chain_->closed_incomplete(); }

void StoreLogs::are_in_tables() { chain_->are_in_tables(); }

absl::Status StoreLogs::sync() {
  return rocksdb_status(chain_->sync(), "syncing the write-ahead log");
}

absl::Status StoreLogs::complete() {
  return rocksdb_status(chain_->complete(), "completing the write-ahead log");
}

}  // namespace sluice
