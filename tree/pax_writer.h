// Writes entries of a tree as a pax archive (POSIX.1-2001), as GNU tar, bsdtar and Python read it.
//
// Each entry has a ustar header, and a pax header before it for what does not fit there: names that
// are long or not ASCII (the bytes that they have), links' targets, numbers that are large, times
// with their nanoseconds, names of owners. Extended attributes are SCHILY.xattr.NAME, lists of
// access among them; these are repeated as text, with numbers for owners, in SCHILY.acl.access and
// SCHILY.acl.default, which is where tar --acls looks. A file with holes is a sparse file of GNU's
// format 1.0: what is written follows its data, whatever its size. The same entries make the same
// bytes.
//
// Confined to one thread. In memory: one entry's headers, and of a sparse file the map of its data.
// Errors: INVALID_ARGUMENT for a name that has a NUL byte, INTERNAL for content that is not what
// the header said, and those of the output, after any of which the archive is of no use.
#ifndef SLUICE_TREE_PAX_WRITER_H_
#define SLUICE_TREE_PAX_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tree/extents.h"
#include "tree/file_metadata.h"

namespace sluice {

// Where the data of one file lies, as far as an archive says it: of more than kMaxData extents the
// ones closest to each other become one, and what lies between them is written as zeros.
class SparseMap {
 public:
  static constexpr size_t kMaxData = size_t{1} << 18;
  explicit SparseMap(size_t max_data = kMaxData) : max_data_(max_data) {}

  // Behind what was added before.
  void add(const Extent& extent);
  const std::vector<Extent>& data() const { return data_; }

 private:
  void append(const Extent& extent);

  const size_t max_data_;
  uint64_t least_hole_ = 1;  // bytes; shorter ones are data
  std::vector<Extent> data_;
};

class PaxWriter {
 public:
  // Is given the archive's bytes in order; an error ends the call that caused it.
  using Output = std::function<absl::Status(std::string_view bytes)>;
  explicit PaxWriter(Output output) : output_(std::move(output)) {}

  // A directory, symbolic link, pipe or device. Paths have '/' between names and none at the end.
  absl::Status add(std::string_view path, const FileMetadata& metadata);
  // Another name of what was written as `target`, with its metadata, which some readers set again.
  absl::Status add_hard_link(std::string_view path, std::string_view target,
                             const FileMetadata& metadata);

  // A file of metadata.size bytes, and where its data lies: what no extent covers reads as zeros.
  absl::Status begin_file(std::string_view path, const FileMetadata& metadata,
                          const SparseMap& data);
  // At ascending offsets; what is left out of an extent is zeros.
  absl::Status write(uint64_t offset, std::string_view bytes);
  absl::Status end_file();

  // The end of the archive; without it readers know that something is missing.
  absl::Status finish();

 private:
  struct Header;
  absl::Status write_headers(Header header);
  absl::Status write_block(const Header& header);
  absl::Status put(std::string_view bytes);
  absl::Status put_zeros(uint64_t count);
  absl::Status pad();  // to a whole block

  const Output output_;
  uint64_t written_ = 0;
  std::vector<Extent> data_;  // of the file that is written
  size_t extent_ = 0;         // of these, the one that is written
  uint64_t at_ = 0;           // of the file: bytes of this extent up to here are written
};

}  // namespace sluice

#endif  // SLUICE_TREE_PAX_WRITER_H_
