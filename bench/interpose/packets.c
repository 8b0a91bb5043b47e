// Preloaded into a program (LD_PRELOAD), counts from outside what the packet layer over DPDK must
// not do: more than one copy of payload on arrival, any on departure, and allocations. It knows the
// arena from its registration with DPDK, and a packet from its check, which is one call of
// XXH3_64bits over its payload; so blocks must go without checksums of their own. It counts in
// steps of kWarm packets, without the first and the last: by then every buffer has been in use, and
// nothing of the end is in it. What a virtual device copies, which is in its place, is not seen.
//
// Environment: SLUICE_COUNT_TO: file that gets the counts at the end, as JSON.
#include "calls.h"

enum { kWarm = 20000 };

struct counts {
  unsigned long packets, payload_bytes, copied_bytes, kernel_bytes, allocations;
};
static unsigned long packets, payload_bytes;
static struct counts first, last, latest;

int rte_extmem_register(void* at, size_t bytes, uint64_t* addresses, unsigned int pages,
                        size_t page) {
  REAL(rte_extmem_register);
  if (arena_begin == 0) {
    arena_end = (uintptr_t)at + bytes;
    arena_begin = (uintptr_t)at;
  }
  return real(at, bytes, addresses, pages, page);
}

uint64_t XXH3_64bits_dispatch(const void* from, size_t bytes) {
  REAL(XXH3_64bits_dispatch);
  if (bytes >= COUNTED_FROM) {
    payload_bytes += bytes;
    if (++packets % kWarm == 0) {
      last = latest;
      latest = (struct counts){packets, payload_bytes, copied_bytes, kernel_bytes, allocations};
      if (packets == kWarm) first = latest;
    }
  }
  return real(from, bytes);
}

static void report(void) {
  const char* path = getenv("SLUICE_COUNT_TO");
  FILE* file = path != NULL ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  if (last.packets < first.packets) last = first;
  fprintf(file,
          "{\"arena_bytes\":%lu,\"packets\":%lu,\"payload_bytes\":%lu,\"copied_bytes\":%lu,"
          "\"kernel_bytes\":%lu,\"allocations\":%lu}\n",
          (unsigned long)(arena_end - arena_begin), last.packets - first.packets,
          last.payload_bytes - first.payload_bytes, last.copied_bytes - first.copied_bytes,
          last.kernel_bytes - first.kernel_bytes, last.allocations - first.allocations);
  fclose(file);
}
