// Preloaded into a program (LD_PRELOAD), counts from outside what the packet layer over DPDK must
// not do: more than one copy of payload on arrival, any on departure, and allocations. It knows the
// arena from its registration with DPDK, and a packet from its check, which is one call of
// XXH3_64bits over its payload; so blocks must go without checksums of their own. It counts from
// the kWarm-th packet to the latest. What a virtual device copies, which is in its place, is not
// seen.
//
// Environment: SLUICE_COUNT_TO: file that gets the counts at the end, as JSON.
#include "calls.h"

enum { kWarm = 20000 };

static unsigned long packets, payload_bytes;
static unsigned long first_copied, first_kernel, first_allocations, first_payload;
static unsigned long last_copied, last_kernel, last_allocations;

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
    if (++packets == kWarm) {
      first_copied = copied_bytes;
      first_kernel = kernel_bytes;
      first_allocations = allocations;
      first_payload = payload_bytes;
    }
    last_copied = copied_bytes;
    last_kernel = kernel_bytes;
    last_allocations = allocations;
  }
  return real(from, bytes);
}

static void report(void) {
  const char* path = getenv("SLUICE_COUNT_TO");
  FILE* file = path != NULL ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  const unsigned long counted = packets > kWarm ? packets - kWarm : 0;
  fprintf(file,
          "{\"arena_bytes\":%lu,\"packets\":%lu,\"payload_bytes\":%lu,\"copied_bytes\":%lu,"
          "\"kernel_bytes\":%lu,\"allocations\":%lu}\n",
          (unsigned long)(arena_end - arena_begin), counted,
          counted > 0 ? payload_bytes - first_payload : 0, last_copied - first_copied,
          last_kernel - first_kernel, last_allocations - first_allocations);
  fclose(file);
}
