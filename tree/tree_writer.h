// Writes the entries of a tree below a directory, knowing nothing of where they come from.
//
// Files appear whole: each is written in a directory ".sluice-export-*" within the target, which
// nobody else can enter, given its metadata there, and renamed into place. Where another file
// system is mounted within the target it is copied beside its place first. Nothing is synced by
// itself unless asked for; finish() syncs every file system that was written to, so a power loss
// before can leave files empty that were already in place, on file systems that do not order data
// before names.
//
// Nothing outside of the target is touched: paths are opened name by name and no link is followed.
// Directories that only their owner's mode keeps from being written to are made writable until the
// end. Something else in the place of an entry is replaced by it, but a directory that is not empty
// only where the options say so, or this writer made it.
//
// Confined to one thread.
#ifndef SLUICE_TREE_TREE_WRITER_H_
#define SLUICE_TREE_TREE_WRITER_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"
#include "tree/extents.h"
#include "tree/file_metadata.h"
#include "tree/set_metadata.h"

namespace sluice {

struct TreeWriterOptions {
  std::string directory;             // made where it is not there
  bool numeric_owner = false;        // owners by number alone
  bool replace_directories = false;  // with all that is in them, by what is not a directory
  bool sync_files = false;           // each before it is renamed
};

// What to do about something that stands where a directory is to be made.
enum class InTheWay : uint8_t { kReplace, kRefuse, kSuperseded };

// What was removed, by type.
struct Removed {
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t others = 0;
};

class TreeWriter {
 public:
  using AskAbout = std::function<InTheWay(const std::string& path)>;
  static absl::StatusOr<std::unique_ptr<TreeWriter>> open(const TreeWriterOptions& options,
                                                          AskAbout in_the_way);
  ~TreeWriter();
  TreeWriter(const TreeWriter&) = delete;
  TreeWriter& operator=(const TreeWriter&) = delete;

  // A file that has no place yet, by a name of its own; reopened to write more. Gone once it is
  // placed or discarded.
  std::string stage_name() { return std::to_string(staged_++); }
  absl::StatusOr<UniqueFd> stage(const std::string& staged);
  void discard(const std::string& staged);
  static absl::Status write(int fd, const std::vector<Extent>& extents, std::string_view content);

  // Paths are below the target and valid (check_tree_path()). ABORTED where in_the_way said
  // kSuperseded.
  absl::Status place(const std::string& staged, const std::string& path,
                     const FileMetadata& metadata);
  // The same with the file that stage() opened.
  absl::Status place(UniqueFd fd, const std::string& staged, const std::string& path,
                     const FileMetadata& metadata);
  // A link, pipe or device. UNIMPLEMENTED, and counted, for a device that this process may not
  // make.
  absl::Status make(const std::string& path, const FileMetadata& metadata);
  // Another name of what stands at `target`.
  absl::Status link(const std::string& target, const std::string& path);
  absl::Status make_directory(const std::string& path);
  // When nothing is made in it any more, and the deepest first.
  absl::Status finish_directory(const std::string& path, const FileMetadata& metadata);
  // Also where not all was written: gives directories back the modes that they had.
  absl::Status finish();

  const NotSet& not_set() const { return not_set_; }
  // Of what this writer had made itself.
  const Removed& removed() const { return removed_; }
  // Whether something took the place of a directory that this writer made, at the path or above.
  bool is_replaced(std::string_view path) const;

 private:
  TreeWriter(const TreeWriterOptions& options, AskAbout in_the_way);
  absl::Status open_target();
  absl::Status make_workable(int place, const std::string& path);
  void close_directories();
  absl::StatusOr<UniqueFd> open_directory(std::string_view path);
  absl::StatusOr<UniqueFd> open_name(int parent, const std::string& name, const std::string& path);
  absl::StatusOr<int> open_parent(std::string_view path, std::string* name);
  absl::Status put_in_place(const std::string& staged, const std::string& path);
  absl::Status replace_directory(const std::string& staged, int parent, const std::string& name,
                                 const std::string& path);
  absl::Status copy_beside(const std::string& staged, int parent, const std::string& name);
  absl::Status set_metadata(const std::string& staged, const FileMetadata& metadata);
  // Removes a staged name and all below it.
  Removed purge(const std::string& staged);
  void remove_staging();

  const TreeWriterOptions options_;
  const AskAbout in_the_way_;
  OwnerNames names_;
  UniqueFd root_;
  UniqueFd staging_;
  std::string staging_name_;
  uint64_t staged_ = 0;
  const size_t max_parents_;
  std::unordered_map<std::string, UniqueFd> parents_;  // kept open between files
  std::map<uint64_t, UniqueFd> file_systems_;          // written to, by device
  std::map<std::string, mode_t> opened_;  // directories made writable, with the modes they had
  std::unordered_set<std::string> made_;  // directories
  std::unordered_set<std::string> replaced_;
  NotSet not_set_;
  Removed removed_;
};

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_WRITER_H_
