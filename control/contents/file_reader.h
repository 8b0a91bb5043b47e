// Random access to the files of backups: of a large file the chunks that are asked for are read.
//
// A file is read in the order of its offsets, mostly; then up to kReadAhead chunks are asked for at
// once. What is handed out has passed the checks of its block and the digest of its chunk; the
// digest of the whole, which needs all of it, is not compared.
#ifndef SLUICE_CONTROL_CONTENTS_FILE_READER_H_
#define SLUICE_CONTROL_CONTENTS_FILE_READER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "control/contents/backup_contents.h"

namespace sluice {

// Values that were read last, of any number of backups. Thread-safe. Holds at most `bytes`; those
// that are being used are held besides.
class ValueCache {
 public:
  using Value = std::shared_ptr<const std::string>;
  explicit ValueCache(size_t bytes) : limit_(bytes) {}

  // Null where it is not held.
  Value find(const std::string& name);
  void add(const std::string& name, Value value);

 private:
  using Item = std::pair<std::string, Value>;

  const size_t limit_;
  Mutex mutex_;
  std::list<Item> items_ SLUICE_GUARDED_BY(mutex_);  // used last: first
  std::unordered_map<std::string, std::list<Item>::iterator> places_ SLUICE_GUARDED_BY(mutex_);
  size_t bytes_ SLUICE_GUARDED_BY(mutex_) = 0;
};

// One file that is open. Thread-safe; reads of one file are made one after another. The contents
// and the cache outlive it. Memory: its entry, and the places of up to kKnownChunks chunks of a
// file with holes.
class FileReader {
 public:
  static constexpr size_t kReadAhead = 16;
  static constexpr size_t kKnownChunks = 4096;

  // The file, or the record that is not a tree entry, whose key it is. `backup` distinguishes its
  // values in the cache from those of other backups. NOT_FOUND where there is none,
  // FAILED_PRECONDITION for what has no content, DATA_LOSS where a file of one piece does not have
  // its digest.
  static absl::StatusOr<std::unique_ptr<FileReader>> open(BackupContents& contents,
                                                          ValueCache& cache,
                                                          const std::string& backup,
                                                          const std::string& key);

  uint64_t size() const { return header_.size; }
  // The bytes from `offset` on, up to `length` or the end of the file; holes as zeros. DATA_LOSS
  // where a chunk is missing, foreign or damaged.
  absl::StatusOr<std::string> read(uint64_t offset, size_t length);
  // Where the first data from `offset` on is, and the first hole; there is one at the end of each
  // file. The file's size where there is no data, or the offset is not below it.
  absl::StatusOr<uint64_t> find_data(uint64_t offset);
  absl::StatusOr<uint64_t> find_hole(uint64_t offset);

 private:
  struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;
  };

  FileReader(BackupContents& contents, ValueCache& cache, const std::string& backup,
             const std::string& key)
      : contents_(contents), cache_(cache), backup_(backup), key_(key) {}
  absl::Status load();
  // The value of a chunk, or of the only piece.
  absl::StatusOr<ValueCache::Value> piece_locked(uint64_t number) SLUICE_REQUIRES(mutex_);
  absl::StatusOr<ValueCache::Value> fetch_locked(uint64_t first, size_t count)
      SLUICE_REQUIRES(mutex_);
  // The first piece that has data beyond the offset; the number of pieces where none has.
  absl::StatusOr<uint64_t> find_locked(uint64_t offset) SLUICE_REQUIRES(mutex_);
  // The first extent that ends beyond the offset; empty, at the file's end, where there is none.
  absl::StatusOr<Extent> extent_locked(uint64_t offset) SLUICE_REQUIRES(mutex_);
  absl::StatusOr<Range> range_locked(uint64_t number) SLUICE_REQUIRES(mutex_);
  std::string name_of(uint64_t number) const;

  BackupContents& contents_;
  ValueCache& cache_;
  const std::string backup_;
  const std::string key_;
  TreeHeader header_;    // of a record that is not a tree entry: of a file with its value
  bool record_ = false;  // it is one

  Mutex mutex_;
  uint64_t last_ SLUICE_GUARDED_BY(mutex_) = 0;                 // chunk that was used
  size_t ahead_ SLUICE_GUARDED_BY(mutex_) = 1;                  // chunks to ask for at once
  std::map<uint64_t, Range> ranges_ SLUICE_GUARDED_BY(mutex_);  // of chunks of a file with holes
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CONTENTS_FILE_READER_H_
