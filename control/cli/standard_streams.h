// The three standard streams, which may be closed, full, or have lost their reader.
#ifndef SLUICE_CONTROL_CLI_STANDARD_STREAMS_H_
#define SLUICE_CONTROL_CLI_STANDARD_STREAMS_H_

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace sluice {

// Called first in main(), before anything opens a file: a standard stream that is closed is opened
// on /dev/null, so that no file of this program gets its number and with it what is printed. The
// direction is the wrong one: reading and writing fail there as they would on the closed stream.
// Log messages go to stderr.
void open_standard_streams();

// All of it, or the error that write() ended with.
absl::Status write_stdout(std::string_view text);
// Whether the last error of write_stdout() was that its reader went away.
bool stdout_reader_gone();

// What cannot be written is dropped: there is nobody to tell.
void write_stderr(std::string_view text);
template <typename... Args>
void print_stderr(fmt::format_string<Args...> format, Args&&... args) {
  write_stderr(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLI_STANDARD_STREAMS_H_
