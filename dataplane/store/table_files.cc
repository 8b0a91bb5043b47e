#include "dataplane/store/table_files.h"

#include <cassert>
#include <vector>

#include "base/status.h"

namespace sluice {

TableFiles::~TableFiles() {
  if (ingested_) return;
  for (size_t i = 0; i < used_; ++i) {
    files_[i].writer.reset();
    // What stays is removed when the store is opened again.
    (void)db_->GetEnv()->DeleteFile(files_[i].path);
  }
}

absl::Status TableFiles::open(rocksdb::ColumnFamilyHandle* family, File** file) {
  assert(used_ < kFamilies);
  File& next = files_[used_++];
  next.family = family;
  next.path = fmt::format("{}-{}.sst", prefix_, family->GetName());
  *file = &next;
  // Past the page cache, which would be filled with what nobody reads soon, at twice the cost. Not
  // every file system can.
  const absl::Status direct = open(next, /*direct=*/true);
  return direct.ok() ? direct : open(next, /*direct=*/false);
}

absl::Status TableFiles::open(File& file, bool direct) {
  const rocksdb::Options options = db_->GetOptions(file.family);
  rocksdb::EnvOptions writing(options);
  writing.use_direct_writes = direct;
  file.writer = std::make_unique<rocksdb::SstFileWriter>(writing, options, file.family,
                                                         /*invalidate_page_cache=*/false);
  return rocksdb_status(file.writer->Open(file.path), "opening a table file");
}

absl::Status TableFiles::put(rocksdb::ColumnFamilyHandle* family, std::string_view key,
                             std::string_view value) {
  File* file = nullptr;
  for (size_t i = 0; i < used_; ++i) {
    if (files_[i].family == family) file = &files_[i];
  }
  if (file == nullptr) SLUICE_RETURN_IF_ERROR(open(family, &file));
  assert(file->writer != nullptr);
  return rocksdb_status(file->writer->Put(to_slice(key), to_slice(value)), "writing a table file");
}

absl::Status TableFiles::finish() {
  for (size_t i = 0; i < used_; ++i) {
    if (files_[i].writer == nullptr) continue;
    SLUICE_RETURN_IF_ERROR(rocksdb_status(files_[i].writer->Finish(), "completing a table file"));
    files_[i].writer.reset();
  }
  return absl::OkStatus();
}

absl::Status TableFiles::ingest() {
  SLUICE_RETURN_IF_ERROR(finish());
  if (used_ == 0) return absl::OkStatus();
  std::vector<rocksdb::IngestExternalFileArg> arguments(used_);
  for (size_t i = 0; i < used_; ++i) {
    arguments[i].column_family = files_[i].family;
    arguments[i].external_files = {files_[i].path};
    arguments[i].options.move_files = true;
    // The files were written by this process a moment ago, and are not changed for their number.
    arguments[i].options.write_global_seqno = false;
    arguments[i].options.verify_checksums_before_ingest = false;
  }
  SLUICE_RETURN_IF_ERROR(
      rocksdb_status(db_->IngestExternalFiles(arguments), "taking table files into the store"));
  ingested_ = true;
  return absl::OkStatus();
}

}  // namespace sluice
