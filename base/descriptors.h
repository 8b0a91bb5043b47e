// File descriptors as a bounded resource: connections that strangers make must leave some for files
// and for connections of the process's own making. Thread-safe.
#ifndef SLUICE_BASE_DESCRIPTORS_H_
#define SLUICE_BASE_DESCRIPTORS_H_

namespace sluice {

// Raises the limit on descriptors as far as the system allows, at most to 65536, and returns it.
int raise_descriptor_limit();

// Whether a descriptor that the kernel has just made is one of the last that there are: a quarter
// of the limit, at most 512. The kernel gives the lowest free number, so a number shows how many
// are in use at least, whoever opened them; nothing has to be counted.
bool is_reserved_descriptor(int fd);

}  // namespace sluice

#endif  // SLUICE_BASE_DESCRIPTORS_H_
