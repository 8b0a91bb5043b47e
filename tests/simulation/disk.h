// A disk of the simulation: files and directories in memory, with what of them is on the device and
// what a failure of the power would take. Names as POSIX has them and no better: a file's sync says
// nothing about its name, which is durable when its directory is synced.
//
// Functions return 0 or an error number. Knows no time and no processes: a mount (mounts.h) makes
// files of the running program of it. Not thread-safe (in a simulation nothing is preempted inside
// of it).
#ifndef SLUICE_TESTS_SIMULATION_DISK_H_
#define SLUICE_TESTS_SIMULATION_DISK_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "tests/simulation/file_content.h"

namespace sluice::simulation {

struct Inode;
using InodePtr = std::shared_ptr<Inode>;

// A file or a directory. Read by others; changed by Disk alone, except for what is marked.
struct Inode {
  uint64_t number = 0;
  bool is_directory = false;
  uint32_t mode = 0;       // permissions; others may change it
  int64_t changed_ns = 0;  // of the wall clock
  uint32_t links = 0;
  uint32_t opens = 0;
  FileContent content;
  std::map<std::string, InodePtr, std::less<>> entries;  // of a directory
  std::map<std::string, InodePtr, std::less<>> durable_entries;
  std::weak_ptr<Inode> parent;
  // Who has it locked; others may change it.
  const void* lock = nullptr;
  std::function<bool()> lock_is_void;  // its holder is gone
};

class Disk {
 public:
  // What a directory holds, to be put somewhere later; files with several names in it keep them.
  using Tree = std::shared_ptr<const Inode>;

  // What may be of use after a loss of power. kJournaled is what ext4 and XFS do: names are lost
  // from the last one backwards, and what was appended to a file from its end backwards. kAny is
  // all that POSIX permits; RocksDB does not survive it (its manifest is not read past a torn
  // record, and CURRENT may name a manifest that has no name).
  enum class Order : uint8_t { kJournaled, kAny };

  explicit Disk(uint64_t number, uint64_t capacity_bytes = uint64_t{1} << 40);
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  uint64_t number() const { return number_; }
  uint64_t capacity_bytes() const { return capacity_pages_ * FileContent::kPageBytes; }
  void set_capacity_bytes(uint64_t bytes) { capacity_pages_ = bytes / FileContent::kPageBytes; }
  uint64_t free_bytes() const {
    return used_pages_ >= capacity_pages_
               ? 0
               : (capacity_pages_ - used_pages_) * FileContent::kPageBytes;
  }
  Order order = Order::kJournaled;
  // What changes now gets this time.
  void set_wall_ns(int64_t now) { wall_ns_ = now; }
  // Counts failures of the power: what was opened before one is of no use after it.
  uint64_t generation() const { return generation_; }

  const InodePtr& root() const { return root_; }
  // Where `path` leads from a directory. ENOENT, ENOTDIR.
  int find(const InodePtr& from, std::string_view path, InodePtr* found) const;
  // The directory that the last name of the path is in, and that name.
  int find_parent(const InodePtr& from, std::string_view path, InodePtr* directory,
                  std::string* name) const;

  int create(const InodePtr& directory, const std::string& name, uint32_t mode, bool is_directory,
             InodePtr* made);
  int unlink(const InodePtr& directory, const std::string& name);
  int remove_directory(const InodePtr& directory, const std::string& name);
  int link(const InodePtr& file, const InodePtr& directory, const std::string& name);
  int rename(const InodePtr& from, const std::string& old_name, const InodePtr& to,
             const std::string& new_name, bool replace);
  // A file's room is taken until it has neither a name nor anybody who has it open.
  void opened(const InodePtr& inode) { ++inode->opens; }
  void closed(const InodePtr& inode);

  int write(const InodePtr& file, uint64_t offset, std::string_view bytes);
  int resize(const InodePtr& file, uint64_t bytes);
  // A sync covers what was there at its beginning, and holds from its end.
  uint64_t begin_sync(const InodePtr& inode);
  void end_sync(const InodePtr& inode, uint64_t number);
  void fail_sync(const InodePtr& inode, uint64_t number);

  // What was synced stays, and a part of the rest: drawn for the whole, for each page of a file and
  // for each name.
  void lose_power(Random& random);
  // As programs see it now. Null when the path is not there.
  Tree snapshot(std::string_view path);
  // In place of what is there, durably; its directory must be there. A null tree removes it.
  int restore(std::string_view path, const Tree& tree);
  // On the device too. ENOENT, or EINVAL beyond the end.
  int flip_bit(std::string_view path, uint64_t offset, int bit);
  // Of all files, in order; for failures of hardware to choose from.
  std::vector<std::string> files(std::string_view path) const;

 private:
  struct NameChange {
    InodePtr directory;
    std::string name;
    InodePtr to;  // null: removed
  };
  struct NameOperation {  // all of it or nothing
    uint64_t number;
    std::vector<NameChange> changes;
  };

  InodePtr make_inode(bool is_directory, uint32_t mode);
  void change_names(std::vector<NameChange> changes);
  // Changes of these names from before would undo it.
  void make_durable(const NameOperation& operation);
  // It has a name less.
  void lose_name(const InodePtr& inode);
  void release(const InodePtr& inode);
  using Copies = std::map<const Inode*, InodePtr>;
  using CopyContent = std::function<FileContent(const FileContent&)>;
  // Of a file or directory and all below it, as the device has it or as programs see it; all of the
  // copy is durable. Counts its room.
  InodePtr copy(const Inode& from, bool as_durable, const CopyContent& content, Copies& copies);
  const uint64_t number_;
  uint64_t capacity_pages_;
  uint64_t used_pages_ = 0;
  uint64_t last_inode_ = 0;
  uint64_t generation_ = 0;
  int64_t wall_ns_ = 0;
  InodePtr root_;
  std::list<NameOperation> unsynced_;  // oldest first
  uint64_t last_operation_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_DISK_H_
