#include "tests/simulation/fiber.h"

#include <asm/prctl.h>
#include <link.h>
#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "tests/simulation/system_calls.h"

// Saves what a call preserves on the stack in use, stores the stack pointer at *save, and goes on
// with `load` and thread-local storage at `base`. fsgsbase says whether the processor's instruction
// for the latter may be used; the system call takes ten times as long.
extern "C" void sluice_switch_stack(void** save, void* load, uint64_t base, uint64_t fsgsbase);
extern "C" void sluice_enter_fiber();

// clang-format off
__asm__(R"(
  .text
  .globl sluice_switch_stack
  .type sluice_switch_stack, @function
sluice_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  testq %rcx, %rcx
  je 1f
  wrfsbase %rdx
  movq %rsi, %rsp
2:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
1:
  movq %rsi, %rsp
  movq %rdx, %rsi
  movq $0x1002, %rdi
  movq $158, %rax
  syscall
  jmp 2b
  .size sluice_switch_stack, .-sluice_switch_stack

  .globl sluice_enter_fiber
  .type sluice_enter_fiber, @function
sluice_enter_fiber:
  .cfi_startproc
  .cfi_undefined rip
  movq %r13, %rdi
  callq *%r12
  ud2
  .cfi_endproc
  .size sluice_enter_fiber, .-sluice_enter_fiber
)");
// clang-format on
static_assert(ARCH_SET_FS == 0x1002 && SYS_arch_prctl == 158);

namespace sluice::simulation {
namespace {

constexpr size_t kPage = 4096;

const bool has_fsgsbase = (getauxval(AT_HWCAP2) & 2) != 0;  // HWCAP2_FSGSBASE

// A library's part of the thread-local storage, the same distance from each thread's base.
struct ThreadLocals {
  ptrdiff_t offset;
  const void* image;  // what its initialised variables begin with
  size_t image_bytes;
  size_t bytes;
};

int add_thread_locals(dl_phdr_info* library, size_t, void* into) {
  const std::string_view name = library->dlpi_name;
  // The C library's own holds the allocator's caches and what pthread_create() set up.
  if (name.find("/libc.so") != name.npos || name.find("/ld-linux") != name.npos) return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = library->dlpi_phdr[i];
    if (part.p_type != PT_TLS || library->dlpi_tls_data == nullptr) continue;
    const auto offset =
        static_cast<char*>(library->dlpi_tls_data) - reinterpret_cast<char*>(pthread_self());
    // Otherwise it is of a library that was loaded later, and allocated on first use.
    if (offset >= 0 || offset < -(ptrdiff_t{1} << 20)) continue;
    static_cast<std::vector<ThreadLocals>*>(into)->push_back(
        {offset, reinterpret_cast<const void*>(library->dlpi_addr + part.p_vaddr), part.p_filesz,
         part.p_memsz});
  }
  return 0;
}

const std::vector<ThreadLocals>& all_thread_locals() {
  static const std::vector<ThreadLocals>* const all = [] {
    auto* const found = new std::vector<ThreadLocals>;
    dl_iterate_phdr(add_thread_locals, found);
    return found;
  }();
  return *all;
}

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

struct Start {
  char* top = nullptr;
  std::atomic<int> alive{1};  // the kernel clears it when it has let go of the thread
};

void* leave_kernel(void* argument) {
  auto* const start = static_cast<Start*>(argument);
  start->top = static_cast<char*>(__builtin_frame_address(0));
  // This thread alone, and nothing of the C library's.
  __asm__ volatile(
      "movl %0, %%eax\n"
      "syscall\n"
      "movl %1, %%eax\n"
      "xorl %%edi, %%edi\n"
      "syscall\n" ::"i"(SYS_set_tid_address),
      "i"(SYS_exit), "D"(&start->alive)
      : "rax", "rcx", "r11", "memory");
  __builtin_unreachable();
}

}  // namespace

Fiber* Fiber::make(size_t stack_bytes) {
  const size_t bytes = (stack_bytes + kPage - 1) / kPage * kPage;
  char* const memory = static_cast<char*>(mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (memory == MAP_FAILED) give_up("memory for a fiber");
  if (mprotect(memory, kPage, PROT_NONE) != 0) give_up("guard page of a fiber");
  all_thread_locals();
  // A stack that is given to it the C library never reuses, not even in the child of a fork().
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, memory + kPage, bytes);
  auto* const fiber = new Fiber;
  Start start;
  errno = SLUICE_SYSTEM(pthread_create)(&fiber->self_, &attributes, leave_kernel, &start);
  if (errno != 0) give_up("a thread for a fiber");
  pthread_attr_destroy(&attributes);
  while (start.alive.load() != 0) {
    SLUICE_SYSTEM(syscall)(SYS_futex, &start.alive, FUTEX_WAIT, 1, nullptr);
  }
  fiber->top_ = start.top;
  return fiber;
}

Fiber* Fiber::adopt_caller() {
  auto* const fiber = new Fiber;
  fiber->self_ = pthread_self();
  return fiber;
}

void Fiber::begin(void (*entry)(void*), void* argument) {
  if (used_) reset_thread_locals();
  used_ = true;
  // As sluice_switch_stack() leaves it: r15, r14, r13, r12, rbx, rbp, where it returns to; the
  // stack is aligned to 16 bytes then.
  auto* const frame =
      reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(top_ - 1024) & ~63UL) - 8);
  std::memset(static_cast<void*>(frame), 0, 8 * sizeof(void*));
  frame[2] = argument;
  frame[3] = reinterpret_cast<void*>(entry);
  frame[6] = reinterpret_cast<void*>(&sluice_enter_fiber);
  stack_pointer_ = frame;
}

void Fiber::reset_thread_locals() const {
  for (const ThreadLocals& locals : all_thread_locals()) {
    char* const at = reinterpret_cast<char*>(self_) + locals.offset;
    std::memcpy(at, locals.image, locals.image_bytes);
    std::memset(at + locals.image_bytes, 0, locals.bytes - locals.image_bytes);
  }
}

void Fiber::switch_to(Fiber& to) {
  sluice_switch_stack(&stack_pointer_, to.stack_pointer_, to.self_, has_fsgsbase ? 1 : 0);
}

}  // namespace sluice::simulation
