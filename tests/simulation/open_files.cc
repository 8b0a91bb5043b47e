#include "tests/simulation/open_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "base/random.h"
#include "tests/simulation/scheduler.h"

namespace sluice::simulation {
namespace {

constexpr int kFirstDescriptor = 1 << 24;  // the system gives none as high

struct State {
  std::map<std::string, std::unique_ptr<Mount>, std::less<>> mounts;
  std::vector<OpenFilePtr> files;  // by descriptor
  std::vector<std::unique_ptr<OpenDirectory>> directories;
};

// Of the child process that the simulation runs in.
State& state() {
  static State* const all = new State;
  return *all;
}

int64_t wall_ns() {
  const Scheduler& scheduler = *Scheduler::active();
  return scheduler.wall_ns(*Scheduler::active()->current().process);
}

bool may_write(const OpenFile& file) { return (file.flags & O_ACCMODE) != O_RDONLY; }

int wait_for_device(Mount& mount) {
  const auto spread = static_cast<uint64_t>(mount.slowest_sync_ns - mount.fastest_sync_ns);
  const int64_t takes =
      mount.fastest_sync_ns + static_cast<int64_t>(mount.timing.below(spread + 1));
  const timespec time{takes / 1'000'000'000, takes % 1'000'000'000};
  return nanosleep(&time, nullptr);
}

}  // namespace

Mount& mount(const std::string& name, Disk& disk) {
  std::unique_ptr<Mount>& made = state().mounts[name];
  made = std::make_unique<Mount>(disk);
  return *made;
}

// --- Descriptors ---

OpenFile::OpenFile(Mount& of, InodePtr opened, std::string from, int with)
    : mount(of),
      inode(std::move(opened)),
      generation(of.disk.generation()),
      path(std::move(from)),
      flags(with) {
  mount.disk.opened(inode);
}

OpenFile::~OpenFile() {
  if (inode->lock == this) inode->lock = nullptr;
  if (generation == mount.disk.generation()) mount.disk.closed(inode);
}

bool is_simulated(int fd) { return fd >= kFirstDescriptor; }

OpenFilePtr open_file(int fd) {
  const auto at = static_cast<size_t>(fd - kFirstDescriptor);
  return at < state().files.size() ? state().files[at] : nullptr;
}

int add_descriptor(OpenFilePtr file) {
  std::vector<OpenFilePtr>& files = state().files;
  const auto free = std::find(files.begin(), files.end(), nullptr);
  const auto at = free - files.begin();
  if (free == files.end()) {
    files.push_back(std::move(file));
  } else {
    *free = std::move(file);
  }
  return kFirstDescriptor + static_cast<int>(at);
}

int close_descriptor(int fd) {
  const OpenFilePtr file = open_file(fd);
  if (file == nullptr) return EBADF;
  // As POSIX has it: any descriptor that is closed takes the process's lock on the file with it.
  if (file->inode->lock == &Process::current()) file->inode->lock = nullptr;
  state().files[static_cast<size_t>(fd - kFirstDescriptor)] = nullptr;
  return 0;
}

// --- Paths ---

int Place::find(InodePtr* found) const {
  return mount == nullptr ? ENOENT : mount->disk.find(from, path, found);
}

std::optional<Place> place_of(int directory_fd, const char* path) {
  if (Scheduler::active() == nullptr || path == nullptr) return std::nullopt;
  std::string_view rest = path;
  if (!rest.starts_with('/')) {
    if (!is_simulated(directory_fd)) return std::nullopt;
    const OpenFilePtr directory = open_file(directory_fd);
    if (directory == nullptr) return Place();
    return Place{&directory->mount, directory->inode, std::string(rest)};
  }
  if (!rest.starts_with(kRoot)) return std::nullopt;
  rest.remove_prefix(kRoot.size());
  if (!rest.empty() && rest[0] != '/') return std::nullopt;
  rest.remove_prefix(std::min(rest.find_first_not_of('/'), rest.size()));
  // The machine's, and none of the program's business.
  if (rest.empty()) return Place{nullptr, nullptr, {}, true};
  const std::string_view name = rest.substr(0, rest.find('/'));
  const auto known = state().mounts.find(name);
  if (known == state().mounts.end()) return Place();
  Mount& mount = *known->second;
  return Place{&mount, mount.disk.root(), std::string(rest.substr(name.size()))};
}

// --- Calls ---

bool is_void() { return Process::current().crashed(); }

int begin_call(Mount& mount, FileCall call, std::string_view path) {
  Scheduler& scheduler = *Scheduler::active();
  const uint64_t generation = mount.disk.generation();
  scheduler.step();
  if (mount.before && !is_void()) {
    mount.before(call, path);
    if (is_void()) scheduler.step();
  }
  if (generation != mount.disk.generation()) return EIO;
  mount.disk.set_wall_ns(wall_ns());
  switch (call) {
    case FileCall::kRead:
      return mount.read_error;
    case FileCall::kWrite:
      return mount.write_error;
    case FileCall::kSync:
      return 0;  // it fails at its end
    case FileCall::kName:
      return mount.name_error;
  }
  return 0;
}

int begin_call(const OpenFile& file, FileCall call) {
  const int error = begin_call(file.mount, call, file.path);
  return file.generation == file.mount.disk.generation() ? error : EIO;
}

int open_at(const Place& place, int flags, uint32_t mode, int* fd) {
  if (place.mount == nullptr) return ENOENT;
  Mount& mount = *place.mount;
  const bool creates = (flags & O_CREAT) != 0;
  const FileCall call = creates ? FileCall::kName : FileCall::kRead;
  if (const int error = begin_call(mount, call, place.path); error != 0) return error;
  InodePtr inode;
  int error = place.find(&inode);
  if (error == 0 && creates && (flags & O_EXCL) != 0) return EEXIST;
  if (error == ENOENT && creates) {
    InodePtr directory;
    std::string name;
    error = mount.disk.find_parent(place.from, place.path, &directory, &name);
    if (error != 0) return error;
    if (is_void()) {
      inode = std::make_shared<Inode>();  // which has no name
    } else {
      error = mount.disk.create(directory, name, mode, /*is_directory=*/false, &inode);
    }
  }
  if (error != 0) return error;
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (inode->is_directory && writes) return EISDIR;
  if (!inode->is_directory && (flags & O_DIRECTORY) != 0) return ENOTDIR;
  auto file = std::make_shared<OpenFile>(mount, inode, place.path, flags);
  if ((flags & O_TRUNC) != 0 && writes && !is_void()) mount.disk.resize(inode, 0);
  *fd = add_descriptor(std::move(file));
  return 0;
}

int read_file(OpenFile& file, uint64_t offset, void* into, size_t bytes, size_t* done) {
  if (const int error = begin_call(file, FileCall::kRead); error != 0) return error;
  if (file.inode->is_directory) return EISDIR;
  if ((file.flags & O_ACCMODE) == O_WRONLY) return EBADF;
  Mount& mount = file.mount;
  if (mount.slowest_read_ns > 0 && file.path.starts_with(mount.slow_path)) {
    const auto most = static_cast<uint64_t>(mount.slowest_read_ns);
    const timespec moment{0, static_cast<long>(mount.timing.below(most))};
    nanosleep(&moment, nullptr);
    if (file.generation != mount.disk.generation()) return EIO;
  }
  *done = file.inode->content.read(offset, {static_cast<char*>(into), bytes});
  return 0;
}

int write_file(OpenFile& file, uint64_t offset, const void* from, size_t bytes) {
  if (const int error = begin_call(file, FileCall::kWrite); error != 0) return error;
  if (!may_write(file)) return EBADF;
  if (is_void()) return 0;
  const int error =
      file.mount.disk.write(file.inode, offset, {static_cast<const char*>(from), bytes});
  if (error != 0 || (file.flags & O_DSYNC) == 0) return error;
  return sync_file(file);
}

int resize_file(OpenFile& file, uint64_t bytes) {
  if (const int error = begin_call(file, FileCall::kWrite); error != 0) return error;
  if (!may_write(file)) return EINVAL;
  return is_void() ? 0 : file.mount.disk.resize(file.inode, bytes);
}

int sync_file(OpenFile& file) {
  if (const int error = begin_call(file, FileCall::kSync); error != 0) return error;
  Disk& disk = file.mount.disk;
  const uint64_t number = disk.begin_sync(file.inode);
  wait_for_device(file.mount);
  if (file.generation != disk.generation()) return EIO;
  if (file.mount.sync_error != 0) {
    disk.fail_sync(file.inode, number);
    return file.mount.sync_error;
  }
  disk.end_sync(file.inode, number);
  return 0;
}

int lock_file(OpenFile& file, const void* owner, bool wait) {
  if (const int error = begin_call(file, FileCall::kRead); error != 0) return error;
  Inode& inode = *file.inode;
  while (inode.lock != nullptr && inode.lock != owner && !inode.lock_is_void()) {
    if (!wait) return EWOULDBLOCK;
    const timespec a_moment{0, 1'000'000};
    nanosleep(&a_moment, nullptr);
  }
  inode.lock = owner;
  inode.lock_is_void = [&process = Process::current()] { return process.crashed(); };
  return 0;
}

void unlock_file(OpenFile& file, const void* owner) {
  Scheduler::active()->step();
  if (file.inode->lock == owner) file.inode->lock = nullptr;
}

int make_directory(const Place& place, uint32_t mode) {
  if (place.mount == nullptr) return ENOENT;
  if (const int error = begin_call(*place.mount, FileCall::kName, place.path)) return error;
  Disk& disk = place.mount->disk;
  InodePtr directory;
  std::string name;
  if (disk.find(place.from, place.path, &directory) == 0) return EEXIST;
  const int error = disk.find_parent(place.from, place.path, &directory, &name);
  if (error != 0 || is_void()) return error;
  InodePtr made;
  return disk.create(directory, name, mode, /*is_directory=*/true, &made);
}

int remove_name(const Place& place, bool directory) {
  if (place.mount == nullptr) return ENOENT;
  if (const int error = begin_call(*place.mount, FileCall::kName, place.path)) return error;
  Disk& disk = place.mount->disk;
  InodePtr parent;
  std::string name;
  const int error = disk.find_parent(place.from, place.path, &parent, &name);
  if (error != 0 || is_void()) return error;
  return directory ? disk.remove_directory(parent, name) : disk.unlink(parent, name);
}

int rename_file(const Place& from, const Place& to, bool replace) {
  if (from.mount == nullptr || to.mount == nullptr) return ENOENT;
  if (from.mount != to.mount) return EXDEV;
  if (const int error = begin_call(*from.mount, FileCall::kName, from.path)) return error;
  Disk& disk = from.mount->disk;
  InodePtr old_parent;
  InodePtr new_parent;
  std::string old_name;
  std::string new_name;
  int error = disk.find_parent(from.from, from.path, &old_parent, &old_name);
  if (error == 0) error = disk.find_parent(to.from, to.path, &new_parent, &new_name);
  if (error != 0 || is_void()) return error;
  return disk.rename(old_parent, old_name, new_parent, new_name, replace);
}

int link_file(const Place& from, const Place& to) {
  if (from.mount == nullptr || to.mount == nullptr) return ENOENT;
  if (from.mount != to.mount) return EXDEV;
  if (const int error = begin_call(*from.mount, FileCall::kName, from.path)) return error;
  InodePtr file;
  InodePtr parent;
  std::string name;
  int error = from.find(&file);
  if (error == 0) error = to.mount->disk.find_parent(to.from, to.path, &parent, &name);
  if (error != 0 || is_void()) return error;
  return from.mount->disk.link(file, parent, name);
}

// --- Directories ---

OpenDirectory* add_directory(int fd) {
  auto directory = std::make_unique<OpenDirectory>();
  directory->fd = fd;
  const OpenFilePtr file = open_file(fd);
  const auto add = [&](const std::string& name, uint64_t number, bool is_directory) {
    dirent entry{};
    entry.d_ino = number;
    entry.d_type = is_directory ? DT_DIR : DT_REG;
    std::memcpy(entry.d_name, name.c_str(), name.size() + 1);
    directory->names.push_back(entry);
  };
  for (const auto& [name, inode] : file->inode->entries) {
    add(name, inode->number, inode->is_directory);
  }
  // In no order that means anything, as on a real disk.
  std::stable_sort(
      directory->names.begin(), directory->names.end(),
      [](const dirent& a, const dirent& b) { return Random::mix(a.d_ino) < Random::mix(b.d_ino); });
  add(".", file->inode->number, true);
  add("..", file->inode->number, true);
  state().directories.push_back(std::move(directory));
  return state().directories.back().get();
}

OpenDirectory* open_directory(const void* handle) {
  if (Scheduler::active() == nullptr) return nullptr;
  for (const auto& directory : state().directories) {
    if (directory.get() == handle) return directory.get();
  }
  return nullptr;
}

void close_directory(OpenDirectory* directory) {
  std::erase_if(state().directories,
                [directory](const auto& each) { return each.get() == directory; });
}

}  // namespace sluice::simulation
