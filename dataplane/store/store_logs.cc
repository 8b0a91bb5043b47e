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
  LogFile(std::unique_ptr<rocksdb::FSWritableFile> file, std::shared_ptr<LogChain> chain)
      : FSWritableFileOwnerWrapper(std::move(file)), chain_(std::move(chain)) {}
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

  const std::shared_ptr<LogChain> chain_;
  uint64_t size_ = 0;
  uint64_t durable_ = 0;  // of these
  int syncs_ = 0;         // under way
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
    synced_.wait(lock, [&]() SLUICE_REQUIRES(mutex_) { return file->syncs_ == 0; });
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
    const MutexLock lock(mutex_);
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
    const MutexLock lock(mutex_);
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
    const MutexLock lock(mutex_);
    sync_beside_writes(file).PermitUncheckedError();  // noted
  }

  IOStatus sync() {
    const MutexLock lock(mutex_);
    // Those before the last one are durable, unless the disk was full when it began.
    while (failed_.ok() && full_.ok()) {
      const auto at = std::find_if(files_.begin(), files_.end(), [](const LogFile* file) {
        return file->durable_ < file->size_;
      });
      if (at == files_.end()) break;
      const bool is_last = *at == files_.back();
      if (IOStatus status = sync_beside_writes(**at); !status.ok() || is_last) break;
    }
    return failed_.ok() ? full_ : failed_;
  }

 private:
  bool lacks_locked() const SLUICE_REQUIRES(mutex_) {
    return std::any_of(files_.begin(), files_.end(),
                       [](const LogFile* file) { return !file->lacking_.empty(); });
  }
  // What had been written before; the file stays meanwhile.
  IOStatus sync_beside_writes(LogFile& file) SLUICE_REQUIRES(mutex_) {
    if (!failed_.ok()) return failed_;
    const uint64_t covered = file.size_;
    ++file.syncs_;
    mutex_.unlock();
    IOStatus status = file.target()->Sync(rocksdb::IOOptions(), nullptr);
    mutex_.lock();
    --file.syncs_;
    synced_.notify_all();
    note_sync_locked(file, covered, status);
    return status;
  }
  IOStatus sync_locked(LogFile& file) SLUICE_REQUIRES(mutex_) {
    IOStatus status = file.target()->Sync(rocksdb::IOOptions(), nullptr);
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
  LogFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<LogChain> chain)
      : FileSystemWrapper(base), chain_(std::move(chain)) {}
  const char* Name() const override { return "StoreLogs"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           rocksdb::IODebugContext* context) override {
    const bool is_log = std::string_view(path).ends_with(".log");
    const bool is_table = std::string_view(path).ends_with(".sst");
    IOStatus status;
    if (is_log) status = chain_->make_durable();
    if (is_table) status = chain_->check_closed();
    if (!status.ok()) return status;
    status = target()->NewWritableFile(path, options, file, context);
    if (status.ok() && is_log) {
      auto log = std::make_unique<LogFile>(std::move(*file), chain_);
      chain_->add(log.get());
      *file = std::move(log);
    }
    return status;
  }

 private:
  const std::shared_ptr<LogChain> chain_;
};

// Threads and time are those of `base`.
class LogEnv final : public rocksdb::EnvWrapper {
 public:
  LogEnv(rocksdb::Env* base, const std::shared_ptr<LogChain>& chain) : EnvWrapper(base) {
    file_system_ = std::make_shared<LogFileSystem>(base->GetFileSystem(), chain);
    system_clock_ = base->GetSystemClock();
  }
  const char* Name() const override { return "StoreLogs"; }
};

}  // namespace

StoreLogs::StoreLogs(rocksdb::Env* base)
    : chain_(std::make_shared<LogChain>()), env_(std::make_unique<LogEnv>(base, chain_)) {}

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
