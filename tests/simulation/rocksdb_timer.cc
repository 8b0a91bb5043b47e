// RocksDB's periodic tasks (flushing the log that rocksdb_disk.h leaves out, adding statistics to
// it) run on one thread for all stores of a program. In a simulation it would be the thread of
// whichever process opened a store first: when that one crashed in a task, no other could close a
// store any more. So none is registered here.
#include <rocksdb/status.h>

#include <cstdint>
#include <functional>

extern "C" {

// rocksdb::PeriodicTaskScheduler::Register(PeriodicTaskType, const PeriodicTaskFunc&), which calls
// the other one with the type's period.
rocksdb::Status register_periodic_task(void*, uint8_t, const std::function<void()>&) __asm__(
    "_ZN7rocksdb21PeriodicTaskScheduler8RegisterENS_16PeriodicTaskTypeERKSt8functionIFvvEE");
rocksdb::Status
register_periodic_task_every(void*, uint8_t, const std::function<void()>&, uint64_t) __asm__(
    "_ZN7rocksdb21PeriodicTaskScheduler8RegisterENS_16PeriodicTaskTypeERKSt8functionIFvvEEm");

rocksdb::Status register_periodic_task(void*, uint8_t, const std::function<void()>&) {
  return rocksdb::Status::OK();
}

rocksdb::Status register_periodic_task_every(void*, uint8_t, const std::function<void()>&,
                                             uint64_t) {
  return rocksdb::Status::OK();
}

}  // extern "C"
