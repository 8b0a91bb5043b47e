#include "dataplane/store/checkpoint.h"

#include <rocksdb/file_system.h>
#include <rocksdb/metadata.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/defect.h"
#include "base/parallel.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kCopyBytes = size_t{1} << 20;

// Tables that the checkpoint needs are not removed while one of these lives.
class KeepFiles {
 public:
  explicit KeepFiles(StoreDb& db) : db_(db), status_(db->DisableFileDeletions()) {}
  ~KeepFiles() {
    // What it could not remove, the next opening removes.
    if (status_.ok()) db_->EnableFileDeletions(/*force=*/false).PermitUncheckedError();
  }
  KeepFiles(const KeepFiles&) = delete;
  KeepFiles& operator=(const KeepFiles&) = delete;
  const rocksdb::Status& status() const { return status_; }

 private:
  StoreDb& db_;
  const rocksdb::Status status_;
};

class Checkpoint {
 public:
  Checkpoint(StoreDb& db, std::string folder)
      : db_(db), kept_(db), folder_(std::move(folder)), files_(*db->GetFileSystem()) {}

  rocksdb::Status write();
  absl::Status sync();

 private:
  using File = std::unique_ptr<rocksdb::FSWritableFile>;
  rocksdb::Status add(const rocksdb::LiveFileStorageInfo& info);
  rocksdb::Status copy(const rocksdb::LiveFileStorageInfo& info, rocksdb::FSWritableFile& to);
  rocksdb::Status sync_folder(const std::string& path);

  StoreDb& db_;
  const KeepFiles kept_;
  const std::string folder_;
  rocksdb::FileSystem& files_;
  const rocksdb::IOOptions io_;
  std::vector<File> written_;
};

rocksdb::Status Checkpoint::write() {
  if (!kept_.status().ok()) return kept_.status();
  rocksdb::LiveFilesStorageInfoOptions options;
  options.wal_size_for_flush = kCopiedLogBytes;
  std::vector<rocksdb::LiveFileStorageInfo> live;
  if (rocksdb::Status status = db_->GetLiveFilesStorageInfo(options, &live); !status.ok()) {
    return status;
  }
  if (rocksdb::IOStatus status = files_.CreateDir(folder_, io_, nullptr); !status.ok()) {
    return status;
  }
  for (const rocksdb::LiveFileStorageInfo& info : live) {
    // Whoever opens the checkpoint brings the options.
    if (info.file_type == rocksdb::kOptionsFile) continue;
    if (rocksdb::Status status = add(info); !status.ok()) return status;
  }
  return rocksdb::Status::OK();
}

rocksdb::Status Checkpoint::add(const rocksdb::LiveFileStorageInfo& info) {
  const std::string to = folder_ + "/" + info.relative_filename;
  if (info.replacement_contents.empty() && !info.trim_to_size) {
    const std::string from = info.directory + "/" + info.relative_filename;
    const rocksdb::IOStatus linked = files_.LinkFile(from, to, io_, nullptr);
    if (!linked.IsNotSupported()) return linked;
  }
  File file;
  if (rocksdb::IOStatus status = files_.NewWritableFile(to, {}, &file, nullptr); !status.ok()) {
    return status;
  }
  rocksdb::Status status = info.replacement_contents.empty()
                               ? copy(info, *file)
                               : file->Append(info.replacement_contents, io_, nullptr);
  written_.push_back(std::move(file));
  return status;
}

rocksdb::Status Checkpoint::copy(const rocksdb::LiveFileStorageInfo& info,
                                 rocksdb::FSWritableFile& to) {
  const std::string path = info.directory + "/" + info.relative_filename;
  std::unique_ptr<rocksdb::FSSequentialFile> from;
  if (rocksdb::IOStatus status = files_.NewSequentialFile(path, {}, &from, nullptr); !status.ok()) {
    return status;
  }
  std::string buffer(std::min<size_t>(kCopyBytes, info.size), '\0');
  for (uint64_t left = info.size; left > 0;) {
    rocksdb::Slice part;
    const size_t wanted = std::min<size_t>(buffer.size(), left);
    if (rocksdb::IOStatus status = from->Read(wanted, io_, &part, buffer.data(), nullptr);
        !status.ok()) {
      return status;
    }
    if (part.empty()) return rocksdb::Status::Corruption("shorter than it should be", path);
    if (rocksdb::IOStatus status = to.Append(part, io_, nullptr); !status.ok()) return status;
    left -= part.size();
  }
  return rocksdb::Status::OK();
}

absl::Status Checkpoint::sync() {
  if (defect(Defect::kCheckpointIsNotSynced)) return absl::OkStatus();
  std::vector<std::function<absl::Status()>> syncs;
  const auto add = [&syncs](std::function<rocksdb::Status()> sync) {
    syncs.emplace_back([sync = std::move(sync)] { return rocksdb_status(sync(), "syncing"); });
  };
  for (const File& file : written_) {
    add([this, &file]() -> rocksdb::Status {
      if (rocksdb::IOStatus status = file->Fsync(io_, nullptr); !status.ok()) return status;
      return file->Close(io_, nullptr);
    });
  }
  add([this] { return sync_folder(folder_); });
  add([this] { return sync_folder(folder_.substr(0, folder_.rfind('/'))); });
  // Of logs that are linked; tables were synced when they were made.
  syncs.emplace_back([this] { return db_.sync_log(); });
  std::vector<absl::Status> statuses(syncs.size());
  parallel_for(syncs.size(), [&](size_t i) { statuses[i] = syncs[i](); });
  for (const absl::Status& status : statuses) SLUICE_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

rocksdb::Status Checkpoint::sync_folder(const std::string& path) {
  std::unique_ptr<rocksdb::FSDirectory> folder;
  if (rocksdb::IOStatus status = files_.NewDirectory(path, io_, &folder, nullptr); !status.ok()) {
    return status;
  }
  return folder->Fsync(io_, nullptr);
}

}  // namespace

absl::Status prepare_checkpoint(StoreDb& db) {
  SLUICE_ASSIGN_OR_RETURN(const uint64_t bytes, db.log_bytes());
  return bytes < kCopiedLogBytes ? absl::OkStatus() : db.flush();
}

absl::Status make_checkpoint(StoreDb& db, const std::string& folder) {
  const std::string what = fmt::format("taking the cut {}", folder);
  Checkpoint checkpoint(db, folder);
  SLUICE_RETURN_IF_ERROR(rocksdb_status(checkpoint.write(), what));
  return with_context(checkpoint.sync(), what);
}

}  // namespace sluice
