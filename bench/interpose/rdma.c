// Preloaded into a program (LD_PRELOAD), counts from outside what an RDMA data path must not do:
// memory registrations, copies of payload and allocations. It knows the arena from its
// registration, and counts from the kWarm-th block that is posted to the latest one: by then every
// buffer has been in use, and nothing of the end is in it.
//
// Copies are counted in two ways. Calls are added up (calls.h). Compilers put copies in line, and a
// copying loop makes no call at all, so all pages of each buffer but the first (which holds the
// header) are also taken from the processor when counting begins (SLUICE_COUNT_PROTECT=1): the
// device still reaches them, and every page that the processor touches in any way is counted, once,
// and given back.
//
// Environment: SLUICE_COUNT_TO: file that gets the counts at the end, as JSON. SLUICE_COUNT_BUFFER:
// bytes of one buffer.
#include "calls.h"

#include <infiniband/verbs.h>
#include <signal.h>
#include <sys/mman.h>

#define ARENA_FROM ((size_t)16 << 20)
#define PAGE ((size_t)4096)

enum { kWarm = 64 };

// What is reported: counted all the time, and noted at each posted block.
struct counts {
  unsigned long registrations, copied_bytes, kernel_bytes, touched_pages, allocations;
};
static struct counts first, last;
static atomic_ulong registrations, touched_pages;
static atomic_ulong posted_blocks, sent_blocks, sent_bytes;
static int (*real_post_send)(struct ibv_qp*, struct ibv_send_wr*, struct ibv_send_wr**);
static int (*real_post_recv)(struct ibv_qp*, struct ibv_recv_wr*, struct ibv_recv_wr**);

// ---- the processor's touch ----
static struct sigaction before;

static void on_fault(int number, siginfo_t* info, void* context) {
  if (in_arena(info->si_addr)) {
    ++touched_pages;
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
  ++registrations;
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
  to->registrations = registrations;
  to->copied_bytes = copied_bytes;
  to->kernel_bytes = kernel_bytes;
  to->touched_pages = touched_pages;
  to->allocations = allocations;
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
          first.registrations, registrations - first.registrations,
          last.copied_bytes - first.copied_bytes, last.kernel_bytes - first.kernel_bytes,
          last.touched_pages - first.touched_pages, last.allocations - first.allocations);
  fclose(file);
}
