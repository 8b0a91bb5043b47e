// A file that appears whole or not at all: written aside, then synced and renamed, with the owner
// and mode of the file it replaces. "-" is stdout; what is not a regular file (a pipe, /dev/null)
// is written as it is.
#ifndef SLUICE_CONTROL_CLI_OUTPUT_FILE_H_
#define SLUICE_CONTROL_CLI_OUTPUT_FILE_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file.h"

namespace sluice {

// Confined to one thread. What was written aside goes away unless commit() was called.
class OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> open(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status write(std::string_view bytes);
  absl::Status commit();
  // After an error: the pipe that is written has no reader any more.
  bool reader_gone() const { return reader_gone_; }

 private:
  OutputFile(std::string path, std::string aside, UniqueFd fd)
      : path_(std::move(path)), aside_(std::move(aside)), fd_(std::move(fd)) {}
  absl::Status flush();
  absl::Status write_all(std::string_view bytes);

  const std::string path_;
  std::string aside_;  // empty when written as it is
  UniqueFd fd_;
  std::string buffer_;
  bool reader_gone_ = false;
};

// The directory a path lies in.
std::string directory_of(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_OUTPUT_FILE_H_
