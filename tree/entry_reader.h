// Reads the entries of a tree where they are, each as the records that keep it in a backup.
//
// An entry is one record, as an import makes it, with its path as the key (tree_entry.h). A file of
// several chunks has its chunks first and its own record behind them, with the key
// own_record_key(): what it says of the content is known when that has been read. Where the file
// changed meanwhile it is read again, with another generation of chunks; of an entry that never
// stays as it is the last one counts, and says so. Generations that do not count are no harm to
// whoever reads the records: no file's record names them.
//
// No link is followed and nothing outside of the tree is read. Memory: a chunk. Confined to one
// thread.
#ifndef SLUICE_TREE_ENTRY_READER_H_
#define SLUICE_TREE_ENTRY_READER_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "tree/file_metadata.h"
#include "tree/file_values.h"
#include "tree/link_groups.h"
#include "tree/tree_file.h"

namespace sluice {

// Times that a file is read before it is kept as it was read last.
inline constexpr int kReadAttempts = 3;

// Two of the names of a file with several: the one that it is read by, and another one.
struct FileNames {
  std::string first;
  std::string other;
};

class EntryReader {
 public:
  // The names of a file that has several; none where they are not known.
  using NamesOf = std::function<absl::StatusOr<std::optional<FileNames>>(const FileId& id)>;

  // The root, `owners` and what `names_of` uses outlive it.
  EntryReader(int root, OwnerNames& owners, NamesOf names_of)
      : root_(root), owners_(owners), names_of_(std::move(names_of)) {}

  // Reads what is at the path, which is valid below the root; "." is the root. NOT_FOUND where
  // nothing is (any more); FAILED_PRECONDITION for a socket. Where further names are links to this
  // one and it is not a name of the file any more (`noted` is the file that it was), the file is
  // read by another name: what stayed in the tree is not without content.
  absl::Status begin(std::string_view path, const FileId& noted);
  // The next record; false behind the last one. After an error there are no more.
  absl::StatusOr<bool> next();
  // Of the record; valid until the next call.
  const std::string& key() const { return key_; }
  const std::string& value() const { return value_; }

  // Of the entry as it was read. identity() and size() are final, and changed() is known, when
  // next() has returned false.
  FileType type() const { return type_; }
  const FileIdentity& identity() const { return identity_; }
  uint64_t size() const { return size_; }
  bool changed() const { return changed_; }
  // Bytes of content that were read, in vain or not.
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  absl::Status open_parent(std::string_view path);
  absl::Status find(const FileId& noted, struct stat* info);
  absl::Status begin_directory();
  absl::StatusOr<bool> is_further_name(const FileIdentity& identity);
  absl::Status open_file();
  absl::Status begin_file();
  absl::StatusOr<bool> next_chunk();
  absl::StatusOr<bool> read_again();

  const int root_;
  OwnerNames& owners_;
  const NamesOf names_of_;
  // Of the last path: entries of one directory come one after another.
  std::optional<std::string> parent_path_;
  UniqueFd parent_;

  std::string path_;
  std::string name_;  // below parent_
  FileType type_ = FileType::kFile;
  FileIdentity identity_;
  uint64_t size_ = 0;
  bool changed_ = false;
  uint64_t bytes_read_ = 0;
  bool linked_ = false;  // further names name this one

  enum class Left { kNothing, kOne, kChunks, kAgain, kOwnRecord } left_ = Left::kNothing;
  std::string key_;
  std::string value_;

  // Of a file.
  std::optional<TreeFile> file_;
  FileEntry entry_;
  int attempt_ = 0;
  uint64_t generation_ = 0;  // of the first attempt that made chunks; 0: none
  std::unique_ptr<ChunkReader> chunks_;
  bool same_ = true;  // so far, in this attempt
};

}  // namespace sluice

#endif  // SLUICE_TREE_ENTRY_READER_H_
