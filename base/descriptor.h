// File descriptors: reading and writing through one that others may share, and how many there are.
// Thread-safe.
#ifndef SLUICE_BASE_DESCRIPTOR_H_
#define SLUICE_BASE_DESCRIPTOR_H_

#include <sys/epoll.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sluice {

// Writes all of it. Waits where somebody who shares a terminal or pipe made it non-blocking. 0, or
// the error that write() ended with.
int write_all(int fd, std::string_view bytes);
// One read(), which waits in the same way; at the end of the file 0, for an error -errno.
ssize_t read_some(int fd, void* into, size_t size);

// Waits for events of an epoll set, at most `timeout_ns`, and returns how many it wrote; 0 also
// when a signal came. Where the kernel cannot wait for less than a millisecond (before 5.11, or
// where a container forbids it) a time is rounded up to one.
size_t wait_for_events(int epoll, std::span<epoll_event> events, int64_t timeout_ns);

// Descriptors are a bounded resource: connections that strangers make must leave some for files and
// for connections of the process's own making.

// Raises the limit on descriptors as far as the system allows, at most to 65536, and returns it.
int raise_descriptor_limit();

// Whether a descriptor that the kernel has just made is one of the last that there are: a quarter
// of the limit, at most 512. The kernel gives the lowest free number, so a number shows how many
// are in use at least, whoever opened them; nothing has to be counted.
bool is_reserved_descriptor(int fd);

}  // namespace sluice

#endif  // SLUICE_BASE_DESCRIPTOR_H_
