// Makes simulated disks the files of the program that runs in a simulation: what is below
// kRoot/NAME is on the disk that is mounted there, through the C library's functions
// (file_calls.cc) and so through everything above them. Each call is a scheduling point; a sync
// takes time.
//
// A process that has crashed changes nothing any more. What it had open is gone with it, its locks
// too; what it wrote and did not sync is still there, until the disk loses its power.
#ifndef SLUICE_TESTS_SIMULATION_MOUNTS_H_
#define SLUICE_TESTS_SIMULATION_MOUNTS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/random.h"
#include "tests/simulation/disk.h"

namespace sluice::simulation {

inline constexpr std::string_view kRoot = "/sim";

enum class FileCall : uint8_t { kRead, kWrite, kSync, kName };

struct Mount {
  explicit Mount(Disk& mounted) : disk(mounted), timing(mounted.number()) {}

  Disk& disk;
  // Called before each call of a process that has not crashed, with the path it is about as far as
  // it is known (from the disk's root, or of the name alone). May crash the process or lose the
  // disk's power: nothing of the call happens then.
  std::function<void(FileCall, std::string_view path)> before;
  // Error numbers that calls answer with, 0 for none; to be changed at any time. What a sync that
  // fails should have written, no later sync writes.
  int read_error = 0;
  int write_error = 0;
  int sync_error = 0;
  int name_error = 0;
  // How long a sync takes: drawn between the two.
  int64_t fastest_sync_ns = 50'000;
  int64_t slowest_sync_ns = 200'000;
  // A read below this path takes up to so long.
  std::string slow_path;
  int64_t slowest_read_ns = 0;
  Random timing;
};

// The disk's root becomes kRoot/name; it has to outlive the run's files. What was opened before the
// disk lost its power answers EIO from then on.
Mount& mount(const std::string& name, Disk& disk);

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_MOUNTS_H_
