// Preloaded into a program (LD_PRELOAD), counts from outside what an RDMA data path must not do:
// memory registrations, copies of payload and allocations. It knows the arena from its
// registration, and counts from the kWarm-th block that is posted to the latest one: by then every
// buffer has been in use, and nothing of the end is in it.
//
// Copies are counted in two ways. Calls of memcpy and its kin, and of read, write and their kin, of
// 512 bytes and more with an end in the arena are added up. Compilers put copies in line, and a
// copying loop makes no call at all, so all pages of each buffer but the first (which holds the
// header) are also taken from the processor when counting begins (SLUICE_COUNT_PROTECT=1): the
// device still reaches them, and every page that the processor touches in any way is counted, once,
// and given back.
//
// Environment: SLUICE_COUNT_TO: file that gets the counts at the end, as JSON. SLUICE_COUNT_BUFFER:
// bytes of one buffer.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define COUNTED_FROM 512
#define ARENA_FROM ((size_t)16 << 20)
#define PAGE ((size_t)4096)

enum { kWarm = 64 };

// What is reported: counted all the time, and copied at each posted block.
struct counts {
  atomic_ulong registrations, copied_bytes, kernel_bytes, touched_pages, allocations;
};
static struct counts now, first, last;
static atomic_ulong posted_blocks, sent_blocks, sent_bytes;
static atomic_uintptr_t arena_begin, arena_end;
static int (*real_post_send)(struct ibv_qp*, struct ibv_send_wr*, struct ibv_send_wr**);
static int (*real_post_recv)(struct ibv_qp*, struct ibv_recv_wr*, struct ibv_recv_wr**);

static int in_arena(const void* at) {
  const uintptr_t address = (uintptr_t)at;
  return address >= arena_begin && address < arena_end;
}

static void count_copy(const void* to, const void* from, size_t bytes) {
  if (bytes >= COUNTED_FROM && arena_begin != 0 && (in_arena(to) || in_arena(from))) {
    now.copied_bytes += bytes;
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
  if (bytes >= COUNTED_FROM && in_arena(at)) now.kernel_bytes += (unsigned long)bytes;
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
  ++now.allocations;
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t m) {
  ++now.allocations;
  return __libc_calloc(n, m);
}
void* realloc(void* old, size_t n) {
  ++now.allocations;
  return __libc_realloc(old, n);
}
void* memalign(size_t a, size_t n) {
  ++now.allocations;
  return __libc_memalign(a, n);
}
void* aligned_alloc(size_t a, size_t n) {
  ++now.allocations;
  return __libc_memalign(a, n);
}
int posix_memalign(void** to, size_t a, size_t n) {
  ++now.allocations;
  *to = __libc_memalign(a, n);
  return *to == NULL ? 12 : 0;
}

// ---- the processor's touch ----
static struct sigaction before;

static void on_fault(int number, siginfo_t* info, void* context) {
  if (in_arena(info->si_addr)) {
    ++now.touched_pages;
    mprotect((void*)((uintptr_t)info->si_addr & ~(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE);
    return;
  }
  sigaction(SIGSEGV, &before, NULL);  // a real one: again, with the program's own handler
  (void)number;
  (void)context;
}

static void take_pages_away(void) {
  const char* wanted = getenv("SLUICE_COUNT_PROTECT");
  const char* text = getenv("SLUICE_COUNT_BUFFER");
  const size_t buffer = text != NULL ? strtoul(text, NULL, 10) : 0;
  if (wanted == NULL || *wanted != '1' || buffer <= PAGE || buffer % PAGE != 0) return;
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGSEGV, &action, &before);
  for (uintptr_t at = arena_begin; at + buffer <= arena_end; at += buffer) {
    if (mprotect((void*)(at + PAGE), buffer - PAGE, PROT_NONE) != 0) perror("count: mprotect");
  }
}

// ---- registrations ----
static struct ibv_mr* registered(struct ibv_mr* mr, void* at, size_t bytes) {
  ++now.registrations;
  if (mr != NULL && bytes >= ARENA_FROM && arena_begin == 0) {
    arena_end = (uintptr_t)at + bytes;
    arena_begin = (uintptr_t)at;
  }
  return mr;
}
#undef ibv_reg_mr
#undef ibv_reg_mr_iova
struct ibv_mr* ibv_reg_mr(struct ibv_pd* pd, void* at, size_t bytes, int access) {
  REAL(ibv_reg_mr);
  return registered(real(pd, at, bytes, access), at, bytes);
}
struct ibv_mr* ibv_reg_mr_iova(struct ibv_pd* pd, void* at, size_t bytes, uint64_t iova,
                               int access) {
  REAL(ibv_reg_mr_iova);
  return registered(real(pd, at, bytes, iova, access), at, bytes);
}
struct ibv_mr* ibv_reg_mr_iova2(struct ibv_pd* pd, void* at, size_t bytes, uint64_t iova,
                                unsigned int access) {
  REAL(ibv_reg_mr_iova2);
  return registered(real(pd, at, bytes, iova, access), at, bytes);
}
struct ibv_mr* ibv_reg_dmabuf_mr(struct ibv_pd* pd, uint64_t offset, size_t bytes, uint64_t iova,
                                 int fd, int access) {
  REAL(ibv_reg_dmabuf_mr);
  return registered(real(pd, offset, bytes, iova, fd, access), NULL, bytes);
}
int ibv_rereg_mr(struct ibv_mr* mr, int flags, struct ibv_pd* pd, void* at, size_t bytes,
                 int access) {
  REAL(ibv_rereg_mr);
  registered(NULL, at, bytes);
  return real(mr, flags, pd, at, bytes, access);
}

// ---- posts: inline in verbs.h, so caught at the device's table ----
static int has_payload(const struct ibv_sge* parts, int count) {
  for (int i = 0; i < count; ++i) {
    if (in_arena((const void*)(uintptr_t)parts[i].addr)) return 1;
  }
  return 0;
}

static void copy_counts(struct counts* to) {
  to->registrations = now.registrations;
  to->copied_bytes = now.copied_bytes;
  to->kernel_bytes = now.kernel_bytes;
  to->touched_pages = now.touched_pages;
  to->allocations = now.allocations;
}

static void note_block(void) {
  if (++posted_blocks == kWarm) {
    copy_counts(&first);
    take_pages_away();
  }
  if (posted_blocks >= kWarm) copy_counts(&last);
}

static int post_send(struct ibv_qp* qp, struct ibv_send_wr* wr, struct ibv_send_wr** bad) {
  for (const struct ibv_send_wr* one = wr; one != NULL; one = one->next) {
    if (!has_payload(one->sg_list, one->num_sge)) continue;
    note_block();
    ++sent_blocks;
    for (int i = 0; i < one->num_sge; ++i) sent_bytes += one->sg_list[i].length;
  }
  return real_post_send(qp, wr, bad);
}

static int post_recv(struct ibv_qp* qp, struct ibv_recv_wr* wr, struct ibv_recv_wr** bad) {
  for (const struct ibv_recv_wr* one = wr; one != NULL; one = one->next) {
    if (has_payload(one->sg_list, one->num_sge)) note_block();
  }
  return real_post_recv(qp, wr, bad);
}

static struct ibv_qp* watched(struct ibv_qp* qp) {
  if (qp != NULL && qp->context->ops.post_send != post_send) {
    real_post_send = qp->context->ops.post_send;
    real_post_recv = qp->context->ops.post_recv;
    qp->context->ops.post_send = post_send;
    qp->context->ops.post_recv = post_recv;
  }
  return qp;
}
struct ibv_qp* ibv_create_qp(struct ibv_pd* pd, struct ibv_qp_init_attr* attributes) {
  REAL(ibv_create_qp);
  return watched(real(pd, attributes));
}

__attribute__((constructor)) static void begin(void) {
  real_memcpy = (Copy*)dlsym(RTLD_NEXT, "memcpy");
  real_memmove = (Copy*)dlsym(RTLD_NEXT, "memmove");
}

static void report(void) {
  const char* path = getenv("SLUICE_COUNT_TO");
  FILE* file = path != NULL ? fopen(path, "w") : NULL;
  if (file == NULL) return;
  fprintf(file,
          "{\"arena_bytes\":%lu,\"posted_blocks\":%lu,\"sent_blocks\":%lu,\"sent_bytes\":%lu,"
          "\"registrations_before\":%lu,\"registrations_after\":%lu,\"copied_bytes\":%lu,\"kernel_"
          "bytes\":%lu,"
          "\"touched_pages\":%lu,\"allocations\":%lu}\n",
          (unsigned long)(arena_end - arena_begin), posted_blocks, sent_blocks, sent_bytes,
          first.registrations, now.registrations - first.registrations,
          last.copied_bytes - first.copied_bytes, last.kernel_bytes - first.kernel_bytes,
          last.touched_pages - first.touched_pages, last.allocations - first.allocations);
  fclose(file);
}

// A program may end by either.
void _exit(int code) {
  REAL(_exit);
  report();
  real(code);
  abort();
}
__attribute__((destructor)) static void end(void) { report(); }
