// What the counters have in common, once in each: calls that copy payload or allocate, in the
// program they are preloaded into (LD_PRELOAD). Calls of memcpy and its kin, and of read, write and
// their kin, of COUNTED_FROM bytes and more with an end in the arena are added up, and all
// allocations. Compile with -fno-builtin.
#ifndef SLUICE_BENCH_INTERPOSE_CALLS_H_
#define SLUICE_BENCH_INTERPOSE_CALLS_H_

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define COUNTED_FROM 512

static atomic_ulong copied_bytes, kernel_bytes, allocations;
static atomic_uintptr_t arena_begin, arena_end;

static int in_arena(const void* at) {
  const uintptr_t address = (uintptr_t)at;
  return address >= arena_begin && address < arena_end;
}

static void count_copy(const void* to, const void* from, size_t bytes) {
  if (bytes >= COUNTED_FROM && arena_begin != 0 && (in_arena(to) || in_arena(from))) {
    copied_bytes += bytes;
  }
}

// ---- copies ----
typedef void* Copy(void*, const void*, size_t);
static Copy *real_memcpy, *real_memmove;

// Before the real ones are known; must not become a call of memcpy itself.
static void* plain_copy(void* to, const void* from, size_t bytes) {
  unsigned char* t = to;
  const unsigned char* f = from;
  if (t < f) {
    for (size_t i = 0; i < bytes; ++i) {
      t[i] = f[i];
      __asm__ volatile("" ::: "memory");
    }
  } else {
    for (size_t i = bytes; i > 0; --i) {
      t[i - 1] = f[i - 1];
      __asm__ volatile("" ::: "memory");
    }
  }
  return to;
}

void* memcpy(void* to, const void* from, size_t bytes) {
  count_copy(to, from, bytes);
  return (real_memcpy != NULL ? real_memcpy : plain_copy)(to, from, bytes);
}

void* memmove(void* to, const void* from, size_t bytes) {
  count_copy(to, from, bytes);
  return (real_memmove != NULL ? real_memmove : plain_copy)(to, from, bytes);
}

void* mempcpy(void* to, const void* from, size_t bytes) {
  return (char*)memcpy(to, from, bytes) + bytes;
}
void bcopy(const void* from, void* to, size_t bytes) { memmove(to, from, bytes); }
void* __memcpy_chk(void* to, const void* from, size_t bytes, size_t room) {
  if (bytes > room) abort();
  return memcpy(to, from, bytes);
}
void* __memmove_chk(void* to, const void* from, size_t bytes, size_t room) {
  if (bytes > room) abort();
  return memmove(to, from, bytes);
}
void* __mempcpy_chk(void* to, const void* from, size_t bytes, size_t room) {
  if (bytes > room) abort();
  return mempcpy(to, from, bytes);
}

// ---- copies by the kernel ----
static ssize_t count_kernel(const void* at, ssize_t bytes) {
  if (bytes >= COUNTED_FROM && in_arena(at)) kernel_bytes += (unsigned long)bytes;
  return bytes;
}
static ssize_t count_kernel_vector(const struct iovec* parts, size_t count, ssize_t bytes) {
  size_t left = bytes > 0 ? (size_t)bytes : 0;
  for (size_t i = 0; i < count && left > 0; ++i) {
    const size_t part = parts[i].iov_len < left ? parts[i].iov_len : left;
    count_kernel(parts[i].iov_base, (ssize_t)part);
    left -= part;
  }
  return bytes;
}
#define REAL(name)               \
  static __typeof__(&name) real; \
  if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
ssize_t read(int fd, void* to, size_t n) {
  REAL(read);
  return count_kernel(to, real(fd, to, n));
}
ssize_t write(int fd, const void* from, size_t n) {
  REAL(write);
  return count_kernel(from, real(fd, from, n));
}
ssize_t pread(int fd, void* to, size_t n, off_t at) {
  REAL(pread);
  return count_kernel(to, real(fd, to, n, at));
}
ssize_t pwrite(int fd, const void* from, size_t n, off_t at) {
  REAL(pwrite);
  return count_kernel(from, real(fd, from, n, at));
}
ssize_t recv(int fd, void* to, size_t n, int flags) {
  REAL(recv);
  return count_kernel(to, real(fd, to, n, flags));
}
ssize_t send(int fd, const void* from, size_t n, int flags) {
  REAL(send);
  return count_kernel(from, real(fd, from, n, flags));
}
ssize_t readv(int fd, const struct iovec* v, int n) {
  REAL(readv);
  return count_kernel_vector(v, (size_t)n, real(fd, v, n));
}
ssize_t writev(int fd, const struct iovec* v, int n) {
  REAL(writev);
  return count_kernel_vector(v, (size_t)n, real(fd, v, n));
}
ssize_t recvmsg(int fd, struct msghdr* m, int flags) {
  REAL(recvmsg);
  return count_kernel_vector(m->msg_iov, m->msg_iovlen, real(fd, m, flags));
}
ssize_t sendmsg(int fd, const struct msghdr* m, int flags) {
  REAL(sendmsg);
  return count_kernel_vector(m->msg_iov, m->msg_iovlen, real(fd, m, flags));
}

// ---- allocations: operator new ends in malloc ----
extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) {
  ++allocations;
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t m) {
  ++allocations;
  return __libc_calloc(n, m);
}
void* realloc(void* old, size_t n) {
  ++allocations;
  return __libc_realloc(old, n);
}
void* memalign(size_t a, size_t n) {
  ++allocations;
  return __libc_memalign(a, n);
}
void* aligned_alloc(size_t a, size_t n) {
  ++allocations;
  return __libc_memalign(a, n);
}
int posix_memalign(void** to, size_t a, size_t n) {
  ++allocations;
  *to = __libc_memalign(a, n);
  return *to == NULL ? 12 : 0;
}

__attribute__((constructor)) static void begin(void) {
  real_memcpy = (Copy*)dlsym(RTLD_NEXT, "memcpy");
  real_memmove = (Copy*)dlsym(RTLD_NEXT, "memmove");
}

// The counter's own: writes what was counted.
static void report(void);

// A program may end by either.
void _exit(int code) {
  REAL(_exit);
  report();
  real(code);
  abort();
}
__attribute__((destructor)) static void end(void) { report(); }

#endif  // SLUICE_BENCH_INTERPOSE_CALLS_H_
