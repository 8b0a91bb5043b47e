// Sorts more lines than fit into memory: runs in files that have no name, merged when read.
#ifndef SLUICE_BASE_SORTED_SPILL_H_
#define SLUICE_BASE_SORTED_SPILL_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace sluice {

// Confined to one thread. In memory: one run, or while merging one key and kReadBytes for each run,
// of which there are fewer than kFanIn for each level of merging. On disk: everything added, twice
// while runs are merged into longer ones.
class SortedSpill {
 public:
  static constexpr size_t kFanIn = 64;
  static constexpr size_t kReadBytes = size_t{256} << 10;

  // Runs are made in `directory`, which must have room for all of it.
  explicit SortedSpill(std::string directory, size_t run_bytes = size_t{64} << 20)
      : directory_(std::move(directory)), run_bytes_(run_bytes) {}

  absl::Status add(std::string_view key, std::string_view line);

  // Hands out all lines by ascending key bytes, each in pieces in order; afterwards the spill is
  // empty. Lines of one key come in the order they were added.
  using Piece = std::function<absl::Status(std::string_view piece)>;
  absl::Status drain(const Piece& piece);

 private:
  struct Line {
    size_t at = 0;  // in memory_
    uint32_t key_bytes = 0;
    uint64_t line_bytes = 0;
  };
  struct Run {
    UniqueFd fd;
    uint64_t bytes = 0;
    int level = 0;  // merges it has been through
  };
  class Reader;
  class Writer;

  void sort_memory();
  std::string_view key_of(const Line& line) const {
    return {memory_.data() + line.at, line.key_bytes};
  }
  absl::Status spill();
  absl::StatusOr<UniqueFd> make_file() const;
  // Merges the last runs of one level into one when there are kFanIn of them.
  absl::Status merge_full_level();
  absl::Status merge(size_t first_run, const std::function<absl::Status(Reader&)>& take_line);

  const std::string directory_;
  const size_t run_bytes_;
  std::string memory_;
  std::vector<Line> lines_;
  std::vector<Run> runs_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_SORTED_SPILL_H_
