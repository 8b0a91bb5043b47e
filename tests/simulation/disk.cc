#include "tests/simulation/disk.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sluice::simulation {
namespace {

// The first name of the path, which is taken off it.
std::string_view next_name(std::string_view* path) {
  const size_t begin = path->find_first_not_of('/');
  if (begin == path->npos) return *path = {};
  path->remove_prefix(begin);
  const std::string_view name = path->substr(0, path->find('/'));
  path->remove_prefix(name.size());
  return name;
}

constexpr size_t kMostNameBytes = 255;

}  // namespace

Disk::Disk(uint64_t number, uint64_t capacity_bytes)
    : number_(number),
      capacity_pages_(capacity_bytes / FileContent::kPageBytes),
      root_(make_inode(/*is_directory=*/true, 0755)) {
  root_->parent = root_;
  root_->links = 1;
}

InodePtr Disk::make_inode(bool is_directory, uint32_t mode) {
  auto inode = std::make_shared<Inode>();
  inode->number = ++last_inode_;
  inode->is_directory = is_directory;
  inode->mode = mode;
  inode->changed_ns = wall_ns_;
  return inode;
}

// --- Names ---

int Disk::find(const InodePtr& from, std::string_view path, InodePtr* found) const {
  InodePtr at = from;
  for (;;) {
    const std::string_view name = next_name(&path);
    if (name.empty()) break;
    if (!at->is_directory) return ENOTDIR;
    if (name == ".") continue;
    if (name == "..") {
      at = at->parent.lock();
      if (at == nullptr) return ENOENT;
      continue;
    }
    const auto entry = at->entries.find(name);
    if (entry == at->entries.end()) return ENOENT;
    at = InodePtr(entry->second);
  }
  *found = std::move(at);
  return 0;
}

int Disk::find_parent(const InodePtr& from, std::string_view path, InodePtr* directory,
                      std::string* name) const {
  while (path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  *name = slash == path.npos ? path : path.substr(slash + 1);
  if (name->empty() || *name == "." || *name == "..") return EINVAL;
  if (name->size() > kMostNameBytes) return ENAMETOOLONG;
  const int error = find(from, slash == path.npos ? "" : path.substr(0, slash), directory);
  if (error != 0) return error;
  return (*directory)->is_directory ? 0 : ENOTDIR;
}

void Disk::change_names(std::vector<NameChange> changes) {
  for (const auto& [directory, name, to] : changes) {
    directory->changed_ns = wall_ns_;
    if (to == nullptr) {
      directory->entries.erase(name);
      continue;
    }
    directory->entries[name] = to;
    if (to->is_directory) to->parent = directory;
  }
  unsynced_.push_back({++last_operation_, std::move(changes)});
}

void Disk::make_durable(const NameOperation& operation) {
  for (const auto& [directory, name, to] : operation.changes) {
    if (to == nullptr) {
      directory->durable_entries.erase(name);
    } else {
      directory->durable_entries[name] = to;
    }
    for (NameOperation& earlier : unsynced_) {
      if (earlier.number >= operation.number) break;
      std::erase_if(earlier.changes, [&](const NameChange& change) {
        return change.directory == directory && change.name == name;
      });
    }
  }
}

int Disk::create(const InodePtr& directory, const std::string& name, uint32_t mode,
                 bool is_directory, InodePtr* made) {
  if (directory->entries.contains(name)) return EEXIST;
  if (directory->links == 0) return ENOENT;
  if (used_pages_ >= capacity_pages_) return ENOSPC;
  *made = make_inode(is_directory, mode);
  (*made)->links = 1;
  change_names({{directory, name, *made}});
  return 0;
}

int Disk::unlink(const InodePtr& directory, const std::string& name) {
  const auto entry = directory->entries.find(name);
  if (entry == directory->entries.end()) return ENOENT;
  const InodePtr inode = entry->second;
  if (inode->is_directory) return EISDIR;
  change_names({{directory, name, nullptr}});
  lose_name(inode);
  return 0;
}

int Disk::remove_directory(const InodePtr& directory, const std::string& name) {
  const auto entry = directory->entries.find(name);
  if (entry == directory->entries.end()) return ENOENT;
  const InodePtr inode = entry->second;
  if (!inode->is_directory) return ENOTDIR;
  if (!inode->entries.empty()) return ENOTEMPTY;
  change_names({{directory, name, nullptr}});
  lose_name(inode);
  return 0;
}

int Disk::link(const InodePtr& file, const InodePtr& directory, const std::string& name) {
  if (file->is_directory) return EPERM;
  if (directory->entries.contains(name)) return EEXIST;
  ++file->links;
  change_names({{directory, name, file}});
  return 0;
}

int Disk::rename(const InodePtr& from, const std::string& old_name, const InodePtr& to,
                 const std::string& new_name, bool replace) {
  const auto entry = from->entries.find(old_name);
  if (entry == from->entries.end()) return ENOENT;
  const InodePtr inode = entry->second;
  InodePtr there;
  if (const auto old = to->entries.find(new_name); old != to->entries.end()) there = old->second;
  if (there == inode) return 0;
  if (there != nullptr) {
    if (!replace) return EEXIST;
    if (inode->is_directory && !there->is_directory) return ENOTDIR;
    if (!inode->is_directory && there->is_directory) return EISDIR;
    if (!there->entries.empty()) return ENOTEMPTY;
  }
  for (InodePtr above = to; inode->is_directory && above != root_; above = above->parent.lock()) {
    if (above == nullptr) return ENOENT;
    if (above == inode) return EINVAL;  // into itself
  }
  change_names({{from, old_name, nullptr}, {to, new_name, inode}});
  if (there != nullptr) lose_name(there);
  return 0;
}

void Disk::lose_name(const InodePtr& inode) {
  --inode->links;
  release(inode);
}

void Disk::closed(const InodePtr& inode) {
  --inode->opens;
  release(inode);
}

void Disk::release(const InodePtr& inode) {
  if (inode->links > 0 || inode->opens > 0) return;
  used_pages_ -= std::min(used_pages_, inode->content.pages());
}

// --- Content ---

int Disk::write(const InodePtr& file, uint64_t offset, std::string_view bytes) {
  const uint64_t added = file->content.pages_added_by(offset, bytes.size());
  if (used_pages_ + added > capacity_pages_) return ENOSPC;
  used_pages_ += added;
  file->content.write(offset, bytes);
  file->changed_ns = wall_ns_;
  return 0;
}

int Disk::resize(const InodePtr& file, uint64_t bytes) {
  const uint64_t had = file->content.pages();
  file->content.resize(bytes);
  used_pages_ -= std::min(used_pages_, had - file->content.pages());
  file->changed_ns = wall_ns_;
  return 0;
}

uint64_t Disk::begin_sync(const InodePtr& inode) {
  return inode->is_directory ? last_operation_ : inode->content.begin_sync();
}

void Disk::end_sync(const InodePtr& inode, uint64_t number) {
  if (!inode->is_directory) return inode->content.end_sync(number);
  for (auto operation = unsynced_.begin(); operation != unsynced_.end();) {
    if (operation->number > number) break;
    const bool touches =
        std::any_of(operation->changes.begin(), operation->changes.end(),
                    [&](const NameChange& change) { return change.directory == inode; });
    if (touches) make_durable(*operation);
    operation =
        touches || operation->changes.empty() ? unsynced_.erase(operation) : std::next(operation);
  }
}

void Disk::fail_sync(const InodePtr& inode, uint64_t number) {
  if (!inode->is_directory) inode->content.fail_sync(number);
}

// --- What happens to disks ---

void Disk::lose_power(Random& random) {
  enum { kNone, kAll, kFirst, kEach } names{};
  names = static_cast<decltype(names)>(random.below(order == Order::kAny ? 4 : 3));
  const uint64_t first = random.below(unsynced_.size() + 1);
  uint64_t count = 0;
  for (const NameOperation& operation : std::exchange(unsynced_, {})) {
    const bool kept = names == kAll || (names == kFirst && count < first) ||
                      (names == kEach && random.chance(0.5));
    if (kept) make_durable(operation);
    ++count;
  }
  const uint64_t how = random.below(4);
  const FileContent::Kept part =
      order == Order::kAny ? FileContent::Kept::kPart : FileContent::Kept::kFirstPart;
  const auto content = [&](const FileContent& file) {
    FileContent after = file;
    // One of four files is unlike the others.
    const uint64_t own = random.below(4) == 0 ? random.below(4) : how;
    after.lose_power(own == 0   ? FileContent::Kept::kNothing
                     : own == 1 ? FileContent::Kept::kAll
                                : part,
                     random);
    return after;
  };
  used_pages_ = 0;
  ++generation_;
  Copies copies;
  root_ = copy(*root_, /*as_durable=*/true, content, copies);
  root_->parent = root_;
  root_->links = 1;
}

InodePtr Disk::copy(const Inode& from, bool as_durable, const CopyContent& content,
                    Copies& copies) {
  InodePtr& known = copies[&from];
  if (known != nullptr) return known;
  const InodePtr made = known = make_inode(from.is_directory, from.mode);
  made->changed_ns = from.changed_ns;
  if (!from.is_directory) {
    made->content = content(from.content);
    used_pages_ += made->content.pages();
  }
  for (const auto& [name, inode] : as_durable ? from.durable_entries : from.entries) {
    const InodePtr below = copy(*inode, as_durable, content, copies);
    ++below->links;
    if (below->is_directory) below->parent = made;
    made->entries[name] = below;
  }
  made->durable_entries = made->entries;
  return made;
}

Disk::Tree Disk::snapshot(std::string_view path) {
  InodePtr found;
  if (find(root_, path, &found) != 0) return nullptr;
  const uint64_t used = used_pages_;
  Copies copies;
  Tree tree = copy(
      *found, /*as_durable=*/false, [](const FileContent& file) { return file.durable_copy(); },
      copies);
  used_pages_ = used;  // it is nowhere yet
  return tree;
}

int Disk::restore(std::string_view path, const Tree& tree) {
  InodePtr directory;
  std::string name;
  if (const int error = find_parent(root_, path, &directory, &name); error != 0) return error;
  std::function<void(const InodePtr&)> remove = [&](const InodePtr& inode) {
    for (const auto& [below_name, below] : inode->entries) remove(below);
    lose_name(inode);
  };
  if (const auto old = directory->entries.find(name); old != directory->entries.end()) {
    remove(old->second);
  }
  InodePtr put;
  if (tree != nullptr) {
    Copies copies;
    put = copy(
        *tree, /*as_durable=*/false, [](const FileContent& file) { return file.durable_copy(); },
        copies);
    put->links = 1;
  }
  change_names({{directory, name, put}});
  make_durable(unsynced_.back());
  unsynced_.pop_back();
  return 0;
}

int Disk::flip_bit(std::string_view path, uint64_t offset, int bit) {
  InodePtr file;
  if (const int error = find(root_, path, &file); error != 0) return error;
  if (offset >= file->content.size()) return EINVAL;
  file->content.flip_bit(offset, bit);
  return 0;
}

std::vector<std::string> Disk::files(std::string_view path) const {
  std::vector<std::string> all;
  const std::function<void(const Inode&, const std::string&)> add = [&](const Inode& directory,
                                                                        const std::string& at) {
    for (const auto& [name, inode] : directory.entries) {
      if (inode->is_directory) {
        add(*inode, at + "/" + name);
      } else {
        all.push_back(at + "/" + name);
      }
    }
  };
  InodePtr from;
  if (find(root_, path, &from) == 0) add(*from, std::string(path == "/" ? "" : path));
  return all;
}

}  // namespace sluice::simulation
