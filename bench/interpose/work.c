// Preloaded into each process of a cluster and into its client (LD_PRELOAD), counts from outside
// what the data path does: bytes copied by memcpy and its kin, bytes that read, write and their kin
// move into or out of the kernel, bytes hashed by libxxhash, and allocations. Calls of COUNTED_FROM
// bytes and more count, but all allocations. What is copied in line, what io_uring moves and what
// RocksDB hashes itself are not seen.
//
// Environment: SLUICE_COUNT_TO: directory that gets a file for each process, named by its number,
// which always holds what has been counted up to now (struct counts).
#include "calls.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

struct counts {
  uint64_t copied_bytes, kernel_bytes, hashed_bytes, allocations;
};
static atomic_ulong hashed_bytes;
static struct counts* shown;

uint64_t XXH3_64bits_dispatch(const void* from, size_t bytes) {
  REAL(XXH3_64bits_dispatch);
  if (bytes >= COUNTED_FROM) hashed_bytes += bytes;
  return real(from, bytes);
}

struct hash128 {
  uint64_t low, high;
};
struct hash128 XXH3_128bits_dispatch(const void* from, size_t bytes) {
  REAL(XXH3_128bits_dispatch);
  if (bytes >= COUNTED_FROM) hashed_bytes += bytes;
  return real(from, bytes);
}

int XXH3_128bits_update_dispatch(void* state, const void* from, size_t bytes) {
  REAL(XXH3_128bits_update_dispatch);
  if (bytes >= COUNTED_FROM) hashed_bytes += bytes;
  return real(state, from, bytes);
}

static void report(void) {
  if (shown != NULL) {
    *shown = (struct counts){copied_bytes, kernel_bytes, hashed_bytes, allocations};
  }
}

static void* report_often(void* unused) {
  for (;;) {
    report();
    usleep(20000);
  }
  return unused;
}

__attribute__((constructor)) static void show(void) {
  const char* directory = getenv("SLUICE_COUNT_TO");
  char path[4096];
  if (directory == NULL) return;
  snprintf(path, sizeof path, "%s/%d", directory, getpid());
  const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, sizeof *shown) != 0) abort();
  void* const at = mmap(NULL, sizeof *shown, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) abort();
  shown = at;
  // Of any memory, not of an arena's.
  arena_end = UINTPTR_MAX;
  arena_begin = 1;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, NULL, report_often, NULL) != 0) abort();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}
