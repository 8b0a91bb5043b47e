// What this machine's processors can do with memory that is in no cache, as limits of what can go
// over shared memory. Prints Gbit/s. Usage: dpdk_copy_limit SECONDS copy|handover
//
//   copy      one core: blocks of 1 MiB are copied to another place and the copies' XXH3 taken.
//   handover  two cores, processors 0 and 1: one takes each packet's XXH3 and copies it into a ring
//             of 256 places, the other copies it out, takes its XXH3 and copies it to where it
//             belongs. That is all that a shared-memory device and a checked packet must do.
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxh_x86dispatch.h>

enum {
  kBlock = 1 << 20,
  kBlocks = 256,
  kPlace = 9216,
  kPlaces = 256,
  kPacket = 8896,
  kBurst = 32,
  kStagger = 1088
};
static const size_t kCold = (size_t)kBlock * kBlocks;

struct ring {
  _Alignas(64) atomic_ulong filled;
  _Alignas(64) atomic_ulong emptied;
  _Alignas(64) char places[kPlaces][kPlace];
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void* memory(size_t bytes) {
  void* at =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (at == MAP_FAILED)
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) exit(1);
  memset(at, 1, bytes);
  return at;
}

static double copy(double seconds) {
  char* from = memory(kCold);
  // Not at the same place of a page: a processor takes such loads and stores for dependent.
  char* to = (char*)memory(kCold + kStagger) + kStagger;
  uint64_t blocks = 0;
  uint64_t sum = 0;
  const double begin = now();
  while (now() < begin + seconds) {
    const size_t at = blocks++ % kBlocks * kBlock;
    memcpy(to + at, from + at, kBlock);
    sum ^= XXH3_64bits(to + at, kBlock);
  }
  fprintf(stderr, "%llx\n", (unsigned long long)sum);
  return (double)blocks * kBlock / (now() - begin);
}

static void run_on(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) exit(1);
}

// Where packet `number` stands in cold memory.
static char* cold_place(char* base, uint64_t number) {
  return base + number % (kCold / kPacket) * kPacket;
}

static void empty(struct ring* ring) {
  static char packets[kBurst][kPlace];
  char* to = memory(kCold);
  uint64_t sum = 0;
  for (uint64_t number = 0;;) {
    const uint64_t filled = atomic_load_explicit(&ring->filled, memory_order_acquire);
    for (; number < filled; ++number) {
      char* packet = packets[number % kBurst];
      memcpy(packet, ring->places[number % kPlaces], kPacket);
      sum ^= XXH3_64bits(packet, kPacket);
      memcpy(cold_place(to, number), packet, kPacket);
    }
    packets[0][kPlace - 1] = (char)sum;
    atomic_store_explicit(&ring->emptied, number, memory_order_release);
  }
}

static double handover(double seconds) {
  struct ring* ring = memory(sizeof *ring);
  atomic_store(&ring->filled, 0);
  atomic_store(&ring->emptied, 0);
  const pid_t other = fork();
  if (other < 0) exit(1);
  if (other == 0) {
    run_on(0);
    empty(ring);
  }
  run_on(1);
  char* from = memory(kCold);
  uint64_t number = 0;
  uint64_t sum = 0;
  double begin = now();
  double time = begin;
  for (; time < begin + seconds; time = now()) {
    while (number + kBurst - atomic_load_explicit(&ring->emptied, memory_order_acquire) > kPlaces)
      __builtin_ia32_pause();
    for (int i = 0; i < kBurst; ++i, ++number) {
      const char* packet = cold_place(from, number);
      sum ^= XXH3_64bits(packet, kPacket);
      memcpy(ring->places[number % kPlaces], packet, kPacket);
    }
    atomic_store_explicit(&ring->filled, number, memory_order_release);
  }
  kill(other, SIGKILL);
  waitpid(other, NULL, 0);
  fprintf(stderr, "%llx\n", (unsigned long long)sum);
  return (double)number * kPacket / (time - begin);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const double seconds = atof(argv[1]);
  const double rate = strcmp(argv[2], "handover") == 0 ? handover(seconds) : copy(seconds);
  printf("%.4f\n", rate * 8 / 1e9);
  return 0;
}
