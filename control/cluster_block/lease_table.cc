#include "control/cluster_block/lease_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "base/random.h"
#include "base/status.h"

namespace sluice::cluster_block {
namespace {

using Word = uint64_t;

constexpr uint64_t kMagic = 0x5345'5341'454c'4c53;  // "SLLEASES"
constexpr size_t kIdBytes = 40;
constexpr size_t kHeaderBytes = 64;
constexpr size_t kSlots = (LeaseTable::kBytes - kHeaderBytes) / sizeof(Word);

// clang-format off
// word:  deadline (39 bits, ms of the monotonic clock; 0: free) | graced (1) | generation (24)
// lease: generation (24) | time to live (27, ms) | slot (9)
// clang-format on
constexpr int kGenerationBits = 24;
constexpr int kSlotBits = 9;
constexpr int kTtlBits = 27;
constexpr uint64_t kGenerations = uint64_t{1} << kGenerationBits;
constexpr Word kGraced = kGenerations;
constexpr int kDeadlineShift = kGenerationBits + 1;
static_assert(kSlots <= size_t{1} << kSlotBits);
static_assert(ClusterBlock::kMaxLeaseMs < int64_t{1} << kTtlBits);
static_assert(std::atomic<Word>::is_always_lock_free);

struct Lease {
  uint64_t generation = 0;
  int64_t ttl_ms = 0;
  size_t slot = 0;
};

LeaseId id_of(const Lease& lease) {
  return (lease.generation << kTtlBits | static_cast<uint64_t>(lease.ttl_ms)) << kSlotBits |
         lease.slot;
}

// nullopt for what is not the id of a lease.
std::optional<Lease> lease_of(LeaseId id) {
  Lease lease;
  lease.slot = id & ((size_t{1} << kSlotBits) - 1);
  lease.ttl_ms = static_cast<int64_t>(id >> kSlotBits & ((uint64_t{1} << kTtlBits) - 1));
  lease.generation = id >> (kSlotBits + kTtlBits);
  if (lease.slot >= kSlots || lease.generation >= kGenerations ||
      lease.ttl_ms < ClusterBlock::kMinLeaseMs || lease.ttl_ms > ClusterBlock::kMaxLeaseMs) {
    return std::nullopt;
  }
  return lease;
}

// Ends at the earliest `ttl_ms` from now.
int64_t deadline_after(int64_t ttl_ms, const Clock& clock) {
  return (clock.monotonic_ns() + kMs - 1) / kMs + ttl_ms;
}

Word word_of(int64_t deadline_ms, uint64_t generation) {
  return static_cast<Word>(deadline_ms) << kDeadlineShift | generation;
}
int64_t deadline_of(Word word) { return static_cast<int64_t>(word >> kDeadlineShift); }
uint64_t generation_of(Word word) { return word & (kGenerations - 1); }
bool holds(Word word, const Lease& lease) {
  return deadline_of(word) != 0 && generation_of(word) == lease.generation;
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

struct LeaseTable::File {
  uint64_t magic;
  uint32_t format;
  uint32_t slots;
  std::array<char, kIdBytes> id;
  ChangeCounter commits;
  uint32_t reserved;
  std::array<std::atomic<Word>, kSlots> words;
};

LeaseTable::LeaseTable(std::string path, UniqueFd fd, File* file)
    : path_(std::move(path)), fd_(std::move(fd)), file_(file) {}

LeaseTable::~LeaseTable() { ::munmap(file_, kBytes); }

absl::StatusOr<std::shared_ptr<LeaseTable>> LeaseTable::open(const std::string& path,
                                                             std::string_view id) {
  static_assert(sizeof(File) == kBytes);
  const auto damaged = [&](std::string_view why) {
    return data_loss("the table of leases {} is not usable: {}", path, why);
  };
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd && errno == ENOENT) return not_found("no table of leases at {}", path);
  if (!fd) return errno_status(errno, fmt::format("open the table of leases {}", path));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return errno_status(errno, fmt::format("stat {}", path));
  if (!S_ISREG(info.st_mode)) {
    return failed_precondition(
        "{} is not a regular file: the table of leases belongs there; "
        "remove it",
        path);
  }
  if (info.st_size != static_cast<off_t>(kBytes)) {
    return damaged(fmt::format("it has {} bytes instead of {}", info.st_size, kBytes));
  }
  void* const memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return errno_status(errno, fmt::format("map {}", path));
  std::shared_ptr<LeaseTable> table(
      new LeaseTable(path, std::move(fd), std::launder(static_cast<File*>(memory))));
  const File& file = *table->file_;
  if (file.magic != kMagic) return damaged("it is of another kind");
  if (file.format != kFormat) {
    return failed_precondition("the table of leases {} has format {}; this build reads format {}",
                               path, file.format, kFormat);
  }
  const std::string_view found(file.id.data(), ::strnlen(file.id.data(), file.id.size()));
  if (file.slots != kSlots || found != id) return damaged("it is that of another cluster block");
  return table;
}

absl::StatusOr<std::shared_ptr<LeaseTable>> LeaseTable::make(const std::string& path,
                                                             const std::string& database,
                                                             std::string_view id,
                                                             const std::vector<LeaseId>& leases,
                                                             const Clock& clock) {
  struct stat whose {};
  if (::stat(database.c_str(), &whose) != 0) {
    return errno_status(errno, fmt::format("stat {}", database));
  }
  const std::string aside = path + ".new";
  ::unlink(aside.c_str());
  const UniqueFd fd(::open(aside.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return errno_status(errno, fmt::format("create {}", aside));

  const auto file = std::make_unique<File>();
  file->magic = kMagic;
  file->format = kFormat;
  file->slots = kSlots;
  id.copy(file->id.data(), file->id.size());
  // Leases of the table that this one replaces, and which are not among `leases`, are unlikely to
  // be met again.
  for (std::atomic<Word>& word : file->words) word = word_of(0, entropy() % kGenerations);
  for (const LeaseId each : leases) {
    const std::optional<Lease> lease = lease_of(each);
    if (!lease) continue;
    file->words[lease->slot] = word_of(deadline_after(lease->ttl_ms, clock), lease->generation);
  }
  const auto fail = [&](int error, std::string_view what) {
    ::unlink(aside.c_str());
    return errno_status(error, fmt::format("{} {}", what, aside));
  };
  // All blocks are there before the first store through the mapping, which could not be told of an
  // error. Not synced: after a crash of the machine it is of an earlier boot.
  if (const int error = ::posix_fallocate(fd.get(), 0, kBytes); error != 0) {
    return fail(error, "allocate");
  }
  if (::pwrite(fd.get(), file.get(), kBytes, 0) != static_cast<ssize_t>(kBytes)) {
    return fail(errno == 0 ? EIO : errno, "write");
  }
  // As SQLite does with its own files: whoever may use the database may use this.
  if (::geteuid() == 0 && ::fchown(fd.get(), whose.st_uid, whose.st_gid) != 0) {
    return fail(errno, "change the owner of");
  }
  if (::fchmod(fd.get(), whose.st_mode & 0666) != 0) return fail(errno, "change the mode of");
  if (::rename(aside.c_str(), path.c_str()) != 0) return fail(errno, "rename");
  return open(path, id);
}

bool LeaseTable::is_whole() const {
  struct stat info {};
  return ::fstat(fd_.get(), &info) == 0 && info.st_nlink > 0 &&
         info.st_size == static_cast<off_t>(kBytes);
}

bool LeaseTable::is_mapped() const {
  struct stat info {};
  return ::fstat(fd_.get(), &info) == 0 && info.st_size == static_cast<off_t>(kBytes);
}

bool LeaseTable::has_its_name() const {
  struct stat mapped {};
  struct stat named {};
  // Where nothing has the name, the directory was moved or the file renamed: it is still shared.
  return ::fstat(fd_.get(), &mapped) != 0 || ::lstat(path_.c_str(), &named) != 0 ||
         is_same_file(mapped, named);
}

ChangeCounter& LeaseTable::commits() { return file_->commits; }

absl::StatusOr<LeaseId> LeaseTable::grant(int64_t ttl_ms, const Clock& clock) {
  // Slots that are free before those whose lease has run out and been forgotten: a lease with keys
  // should be ended by those who look at it.
  for (const bool take_due : {false, true}) {
    for (size_t slot = 0; slot < kSlots; ++slot) {
      Word word = file_->words[slot].load();
      const int64_t left = deadline_of(word) - clock.monotonic_ms();
      const bool runs = left > 0 && left <= ClusterBlock::kMaxLeaseMs + 1;
      if (deadline_of(word) != 0 && (!take_due || runs)) continue;
      const uint64_t generation = (generation_of(word) + 1) % kGenerations;
      if (file_->words[slot].compare_exchange_strong(
              word, word_of(deadline_after(ttl_ms, clock), generation))) {
        return id_of({generation, ttl_ms, slot});
      }
    }
  }
  return resource_exhausted("all {} leases of {} are taken; wait until some have ended", kSlots,
                            path_);
}

bool LeaseTable::renew(LeaseId id, const Clock& clock) {
  const std::optional<Lease> lease = lease_of(id);
  if (!lease) return false;
  std::atomic<Word>& slot = file_->words[lease->slot];
  Word word = slot.load();
  while (holds(word, *lease)) {
    const Word renewed = word_of(deadline_after(lease->ttl_ms, clock), lease->generation);
    if (slot.compare_exchange_strong(word, renewed)) return true;
  }
  return false;
}

void LeaseTable::end(LeaseId id) {
  const std::optional<Lease> lease = lease_of(id);
  if (!lease) return;
  std::atomic<Word>& slot = file_->words[lease->slot];
  Word word = slot.load();
  while (holds(word, *lease)) {
    if (slot.compare_exchange_strong(word, word_of(0, lease->generation))) return;
  }
}

bool LeaseTable::is_alive(LeaseId id, const Clock& clock, const Pulse& pulse) {
  const std::optional<Lease> lease = lease_of(id);
  if (!lease) return false;
  std::atomic<Word>& slot = file_->words[lease->slot];
  Word word = slot.load();
  while (holds(word, *lease)) {
    const int64_t now = clock.monotonic_ms();
    const int64_t deadline = deadline_of(word);
    // A deadline further away than a renewal can make it is damage.
    const bool possible = deadline <= now + lease->ttl_ms + 1;
    if (possible && deadline > now) return true;
    // The first store to a page that was written back waits for the file system. Renewals wait with
    // it, so a lease is not judged by someone who waited there.
    if (!slot.compare_exchange_strong(word, word)) continue;
    if (clock.monotonic_ms() - now > lease->ttl_ms / 4) return true;
    const bool spare = possible && (word & kGraced) == 0 &&
                       pulse.stood_still(deadline * kMs, lease->ttl_ms / 2 * kMs);
    if (spare) {
      const Word graced = word_of(deadline_after(lease->ttl_ms / 2, clock), lease->generation);
      if (slot.compare_exchange_strong(word, graced | kGraced)) return true;
    } else if (slot.compare_exchange_strong(word, word_of(0, lease->generation))) {
      return false;
    }
  }
  return false;
}

}  // namespace sluice::cluster_block
