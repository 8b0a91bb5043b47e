#include "base/sorted_spill.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <queue>

#include "base/bytes.h"
#include "base/descriptor.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kHeaderBytes = 12;  // key length (u32), line length (u64)

}  // namespace

// Collects small writes.
class SortedSpill::Writer {
 public:
  Writer(int fd, const std::string& directory) : fd_(fd), directory_(directory) {
    buffer_.reserve(kReadBytes);
  }
  absl::Status write(std::string_view bytes) {
    written_ += bytes.size();
    if (buffer_.size() + bytes.size() > kReadBytes) SLUICE_RETURN_IF_ERROR(flush());
    if (bytes.size() > kReadBytes) return write_out(bytes);
    buffer_.append(bytes);
    return absl::OkStatus();
  }
  absl::Status write_header(size_t key_bytes, uint64_t line_bytes) {
    std::string header;
    ByteWriter out(&header);
    out.put(static_cast<uint32_t>(key_bytes));
    out.put(line_bytes);
    return write(header);
  }
  absl::Status flush() {
    SLUICE_RETURN_IF_ERROR(write_out(buffer_));
    buffer_.clear();
    return absl::OkStatus();
  }
  uint64_t written() const { return written_; }

 private:
  absl::Status write_out(std::string_view bytes) {
    const int error = write_all(fd_, bytes);
    if (error == 0) return absl::OkStatus();
    return errno_status(
        error,
        fmt::format("write a temporary file in {} (TMPDIR names another directory)", directory_));
  }

  const int fd_;
  const std::string& directory_;
  std::string buffer_;
  uint64_t written_ = 0;
};

// Reads one run from its start: header and key of a line, then the line in pieces.
class SortedSpill::Reader {
 public:
  explicit Reader(const Run& run) : fd_(run.fd.get()), left_(run.bytes) {}

  // False at the end.
  absl::StatusOr<bool> next() {
    if (left_ == 0 && at_ == buffer_.size()) return false;
    SLUICE_RETURN_IF_ERROR(fill(kHeaderBytes));
    const auto key_bytes = load_le<uint32_t>(buffer_.data() + at_);
    line_left_ = load_le<uint64_t>(buffer_.data() + at_ + 4);
    at_ += kHeaderBytes;
    SLUICE_RETURN_IF_ERROR(fill(key_bytes));
    key_.assign(buffer_, at_, key_bytes);
    at_ += key_bytes;
    return true;
  }
  const std::string& key() const { return key_; }
  uint64_t line_left() const { return line_left_; }
  absl::Status read_line(const Piece& piece) {
    while (line_left_ > 0) {
      SLUICE_RETURN_IF_ERROR(fill(1));
      const size_t size = std::min<uint64_t>(line_left_, buffer_.size() - at_);
      SLUICE_RETURN_IF_ERROR(piece(std::string_view(buffer_).substr(at_, size)));
      at_ += size;
      line_left_ -= size;
    }
    return absl::OkStatus();
  }

 private:
  // Makes at least `size` bytes readable at at_.
  absl::Status fill(size_t size) {
    if (buffer_.size() - at_ >= size) return absl::OkStatus();
    buffer_.erase(0, at_);
    at_ = 0;
    while (buffer_.size() < size) {
      const size_t want = std::min<uint64_t>(std::max(kReadBytes, size) - buffer_.size(), left_);
      const size_t before = buffer_.size();
      buffer_.resize(before + want);
      const ssize_t got = pread(fd_, buffer_.data() + before, want, static_cast<off_t>(offset_));
      buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return errno_status(errno, "read a temporary file");
      if (got == 0) return data_loss("a temporary file is shorter than what was written to it");
      offset_ += static_cast<uint64_t>(got);
      left_ -= static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  const int fd_;
  uint64_t left_;
  uint64_t offset_ = 0;
  std::string buffer_;
  size_t at_ = 0;
  std::string key_;
  uint64_t line_left_ = 0;
};

absl::StatusOr<UniqueFd> SortedSpill::make_file() const {
  std::string path = directory_ + "/.sluice-sort-XXXXXX";
  UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
  if (!fd)
    return errno_status(
        errno,
        fmt::format("make a temporary file in {} (TMPDIR names another directory)", directory_));
  unlink(path.c_str());  // it goes with the process, however that ends
  return fd;
}

absl::Status SortedSpill::add(std::string_view key, std::string_view line) {
  if (!lines_.empty() && memory_.size() + key.size() + line.size() > run_bytes_) {
    SLUICE_RETURN_IF_ERROR(spill());
  }
  lines_.push_back({memory_.size(), static_cast<uint32_t>(key.size()), line.size()});
  memory_.append(key);
  memory_.append(line);
  return absl::OkStatus();
}

void SortedSpill::sort_memory() {
  std::sort(lines_.begin(), lines_.end(), [this](const Line& a, const Line& b) {
    const int order = key_of(a).compare(key_of(b));
    return order != 0 ? order < 0 : a.at < b.at;
  });
}

absl::Status SortedSpill::spill() {
  if (lines_.empty()) return absl::OkStatus();
  sort_memory();
  SLUICE_ASSIGN_OR_RETURN(UniqueFd fd, make_file());
  Writer writer(fd.get(), directory_);
  for (const Line& line : lines_) {
    SLUICE_RETURN_IF_ERROR(writer.write_header(line.key_bytes, line.line_bytes));
    SLUICE_RETURN_IF_ERROR(writer.write(
        {memory_.data() + line.at, line.key_bytes + static_cast<size_t>(line.line_bytes)}));
  }
  SLUICE_RETURN_IF_ERROR(writer.flush());
  runs_.push_back({std::move(fd), writer.written(), 0});
  lines_.clear();
  memory_.clear();
  return merge_full_level();
}

absl::Status SortedSpill::merge(size_t first_run,
                                const std::function<absl::Status(Reader&)>& take_line) {
  std::vector<Reader> readers;
  for (size_t i = first_run; i < runs_.size(); ++i) readers.emplace_back(runs_[i]);
  const auto later = [&](size_t a, size_t b) {
    const int order = readers[a].key().compare(readers[b].key());
    return order != 0 ? order > 0 : a > b;
  };
  std::priority_queue<size_t, std::vector<size_t>, decltype(later)> heads(later);
  for (size_t i = 0; i < readers.size(); ++i) {
    SLUICE_ASSIGN_OR_RETURN(const bool more, readers[i].next());
    if (more) heads.push(i);
  }
  while (!heads.empty()) {
    const size_t i = heads.top();
    heads.pop();
    SLUICE_RETURN_IF_ERROR(take_line(readers[i]));
    SLUICE_ASSIGN_OR_RETURN(const bool more, readers[i].next());
    if (more) heads.push(i);
  }
  return absl::OkStatus();
}

absl::Status SortedSpill::merge_full_level() {
  while (true) {
    size_t first = runs_.size();
    while (first > 0 && runs_[first - 1].level == runs_.back().level) --first;
    if (runs_.size() - first < kFanIn) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(UniqueFd fd, make_file());
    Writer writer(fd.get(), directory_);
    const auto copy_line = [&](Reader& reader) -> absl::Status {
      SLUICE_RETURN_IF_ERROR(writer.write_header(reader.key().size(), reader.line_left()));
      SLUICE_RETURN_IF_ERROR(writer.write(reader.key()));
      return reader.read_line([&](std::string_view piece) { return writer.write(piece); });
    };
    SLUICE_RETURN_IF_ERROR(merge(first, copy_line));
    SLUICE_RETURN_IF_ERROR(writer.flush());
    const int level = runs_.back().level + 1;
    runs_.resize(first);
    runs_.push_back({std::move(fd), writer.written(), level});
  }
}

absl::Status SortedSpill::drain(const Piece& piece) {
  if (runs_.empty()) {
    sort_memory();
    for (const Line& line : lines_) {
      SLUICE_RETURN_IF_ERROR(
          piece({memory_.data() + line.at + line.key_bytes, static_cast<size_t>(line.line_bytes)}));
    }
  } else {
    SLUICE_RETURN_IF_ERROR(spill());
    SLUICE_RETURN_IF_ERROR(merge(0, [&](Reader& reader) { return reader.read_line(piece); }));
  }
  runs_.clear();
  lines_.clear();
  memory_.clear();
  return absl::OkStatus();
}

}  // namespace sluice
