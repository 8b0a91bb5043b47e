// Reading and writing through a file descriptor that others may share.
#ifndef SLUICE_BASE_DESCRIPTOR_H_
#define SLUICE_BASE_DESCRIPTOR_H_

#include <sys/types.h>

#include <cstddef>
#include <string_view>

namespace sluice {

// Writes all of it. Waits where somebody who shares a terminal or pipe made it non-blocking. 0, or
// the error that write() ended with.
int write_all(int fd, std::string_view bytes);
// One read(), which waits in the same way; at the end of the file 0, for an error -errno.
ssize_t read_some(int fd, void* into, size_t size);

}  // namespace sluice

#endif  // SLUICE_BASE_DESCRIPTOR_H_
