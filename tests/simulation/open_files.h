// The open files and directories of a simulation, and where paths lead: what the functions in the C
// library's place (file_calls.cc) are made of. Functions return 0 or an error number where nothing
// else is said.
#ifndef SLUICE_TESTS_SIMULATION_OPEN_FILES_H_
#define SLUICE_TESTS_SIMULATION_OPEN_FILES_H_

#include <dirent.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/mounts.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {

// What an open() made; shared by the descriptors that were duplicated from its first.
struct OpenFile {
  Mount& mount;
  const InodePtr inode;
  const uint64_t generation;  // of the disk
  const std::string path;
  int flags;
  uint64_t offset = 0;

  OpenFile(Mount& of, InodePtr opened, std::string from, int with);
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
};
using OpenFilePtr = std::shared_ptr<OpenFile>;

// What an opendir() made: the names as they were then.
struct OpenDirectory {
  int fd;
  std::vector<dirent> names;
  size_t next = 0;
};

// Where a path leads from, on a simulated disk. `mount` is null where there is no such disk.
struct Place {
  Mount* mount = nullptr;
  InodePtr from;
  std::string path;

  int find(InodePtr* found) const;
};
// None for what is not simulated.
std::optional<Place> place_of(int directory_fd, const char* path);

// Descriptors.
bool is_simulated(int fd);
// Null for one that is not open.
OpenFilePtr open_file(int fd);
int add_descriptor(OpenFilePtr file);
int close_descriptor(int fd);

// What each call on a disk begins with. Not 0: nothing else happens.
int begin_call(Mount& mount, FileCall call, std::string_view path);
int begin_call(const OpenFile& file, FileCall call);
// Whether the caller is of a process that has crashed, and changes nothing.
bool is_void();

int open_at(const Place& place, int flags, uint32_t mode, int* fd);
int read_file(OpenFile& file, uint64_t offset, void* into, size_t bytes, size_t* done);
int write_file(OpenFile& file, uint64_t offset, const void* from, size_t bytes);
int resize_file(OpenFile& file, uint64_t bytes);
int sync_file(OpenFile& file);
int lock_file(OpenFile& file, const void* owner, bool wait);
void unlock_file(OpenFile& file, const void* owner);

int make_directory(const Place& place, uint32_t mode);
int remove_name(const Place& place, bool directory);
int rename_file(const Place& from, const Place& to, bool replace);
int link_file(const Place& from, const Place& to);

// A directory is known by what opendir() returned.
OpenDirectory* add_directory(int fd);
OpenDirectory* open_directory(const void* handle);
void close_directory(OpenDirectory* directory);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_OPEN_FILES_H_
