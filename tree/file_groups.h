// Files that an import writes together, in steps that wait for each other.
#ifndef SLUICE_TREE_FILE_GROUPS_H_
#define SLUICE_TREE_FILE_GROUPS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tree/file_values.h"
#include "tree/link_groups.h"
#include "tree/record_stream.h"
#include "tree/tree_entry.h"
#include "tree/tree_file.h"
#include "tree/tree_generations.h"

namespace sluice {

// Of files that are written together: each step waits until the one before it is durable.
inline constexpr uint64_t kGroupBytes = uint64_t{32} << 20;
inline constexpr size_t kGroupFiles = 256;

// A file, or something else with several names.
struct FoundFile {
  std::string path;
  std::optional<FileId> linked;  // it has other names
  std::string value;             // of what is not a file
  Digest128 digest;              // in it
};

// A file of several chunks, or one of several names.
struct GroupFile {
  FoundFile found;
  FileEntry entry;
  FileIdentity identity;
  std::string value;  // whole, where there are no chunks
  enum class State { kGood, kChanged, kFailed } state = State::kGood;
};

struct FileGroup {
  std::vector<GroupFile> files;
  std::vector<FoundFile> found;  // to be read
  uint64_t bytes = 0;
  bool full() const { return bytes >= kGroupBytes || files.size() >= kGroupFiles; }
  void add(GroupFile file, uint64_t file_bytes) {
    bytes += file_bytes;
    files.push_back(std::move(file));
  }
};

// The import that a group belongs to. Thread-safe.
class ImportJob {
 public:
  virtual ~ImportJob() = default;
  // Ends the import where the sink does not take it.
  virtual void put(RecordSink& sink, std::string_view key, std::string_view value) = 0;
  virtual void fail(const std::string& path, std::string reason) = 0;
  virtual void stop(const absl::Status& status) = 0;
  virtual bool stopped() = 0;
  virtual void note_written(uint64_t records, uint64_t bytes) = 0;
};

// Confined to one thread.
class FileGroupWriter {
 public:
  // All outlive it; `root` is the tree's.
  FileGroupWriter(ImportJob& job, RecordStore& store, const std::string& prefix, int root,
                  OwnerNames& names, TreeGenerations& generations)
      : job_(job),
        store_(store),
        prefix_(prefix),
        root_(root),
        names_(names),
        generations_(generations) {}

  // Generation records, then chunks, then the files' own records, each when what comes before is
  // acknowledged. Afterwards the files' states tell what became of them; failures are reported.
  void write(FileGroup& group, int attempt);

 private:
  void put_generations(FileGroup& group, uint64_t generation);
  void put_chunks(FileGroup& group);
  void put_chunks_of(GroupFile& file, RecordSink& sink);
  absl::Status put_content(const TreeFile& now, GroupFile& file, RecordSink& sink);
  void put_files(FileGroup& group);
  // Takes the totals of one step; files with records that were not written fail.
  void take_step(FileGroup& group, RecordSink& sink);
  std::string key_of(const std::string& path) const { return prefix_ + path; }

  ImportJob& job_;
  RecordStore& store_;
  const std::string& prefix_;
  const int root_;
  OwnerNames& names_;
  TreeGenerations& generations_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_FILE_GROUPS_H_
