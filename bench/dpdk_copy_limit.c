// What one core can copy and checksum of memory that is in no cache: each block of 1 MiB is copied to
// another place and the copy's XXH3 taken. Prints Gbit/s. Usage: dpdk_copy_limit SECONDS
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <xxh_x86dispatch.h>

enum { kBlock = 1 << 20, kBlocks = 256 };

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char* from = malloc((size_t)kBlock * kBlocks);
  char* to = malloc((size_t)kBlock * kBlocks);
  if (from == NULL || to == NULL) return 1;
  memset(from, 1, (size_t)kBlock * kBlocks);
  memset(to, 2, (size_t)kBlock * kBlocks);
  const double begin = now();
  const double end = begin + atof(argv[1]);
  uint64_t blocks = 0;
  uint64_t sum = 0;
  while (now() < end) {
    const size_t at = blocks++ % kBlocks * kBlock;
    memcpy(to + at, from + at, kBlock);
    sum ^= XXH3_64bits(to + at, kBlock);
  }
  fprintf(stderr, "%llx\n", (unsigned long long)sum);
  printf("%.4f\n", (double)blocks * kBlock * 8 / (now() - begin) / 1e9);
  return 0;
}
