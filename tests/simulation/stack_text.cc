#include "tests/simulation/stack_text.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string_view>

#include "tests/simulation/system_calls.h"

namespace sluice::simulation {
namespace {

struct Symbol {
  uint64_t size;
  const char* name;
};
using Symbols = std::map<uint64_t, Symbol>;  // by address in the file

// Of the program's file, which stays mapped; empty where it cannot be read.
const Symbols& program_symbols() {
  static const Symbols* const symbols = [] {
    auto* const found = new Symbols;
    const int fd = SLUICE_SYSTEM(open)("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (fd < 0 || SLUICE_SYSTEM(fstat)(fd, &info) != 0) return found;
    void* const memory =
        mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) return found;
    const auto* const file = static_cast<const char*>(memory);
    const auto& header = *reinterpret_cast<const Elf64_Ehdr*>(file);
    const auto* const sections = reinterpret_cast<const Elf64_Shdr*>(file + header.e_shoff);
    for (int i = 0; i < header.e_shnum; ++i) {
      if (sections[i].sh_type != SHT_SYMTAB) continue;
      const auto* const all = reinterpret_cast<const Elf64_Sym*>(file + sections[i].sh_offset);
      const char* const names = file + sections[sections[i].sh_link].sh_offset;
      for (size_t j = 0; j < sections[i].sh_size / sizeof(Elf64_Sym); ++j) {
        if (ELF64_ST_TYPE(all[j].st_info) != STT_FUNC || all[j].st_size == 0) continue;
        (*found)[all[j].st_value] = {all[j].st_size, names + all[j].st_name};
      }
    }
    return found;
  }();
  return *symbols;
}

const char* own_name(uint64_t offset) {
  const Symbols& symbols = program_symbols();
  auto symbol = symbols.upper_bound(offset);
  if (symbol == symbols.begin()) return nullptr;
  --symbol;
  return offset - symbol->first < symbol->second.size ? symbol->second.name : nullptr;
}

std::string frame_text(void* address) {
  static const int here = 0;
  Dl_info info{};
  Dl_info program{};
  if (dladdr(address, &info) == 0 || dladdr(&here, &program) == 0) {
    return fmt::format("{}", address);
  }
  const auto offset =
      static_cast<uint64_t>(static_cast<char*>(address) - static_cast<char*>(info.dli_fbase));
  const std::string_view file = info.dli_fname;
  const std::string place = fmt::format("{}+{:#x}", file.substr(file.rfind('/') + 1), offset);
  // An address to return to may be the next function's first.
  const char* const name =
      info.dli_fbase == program.dli_fbase ? own_name(offset - 1) : info.dli_sname;
  if (name == nullptr) return place;
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return fmt::format("{} ({})", status == 0 ? plain.get() : name, place);
}

}  // namespace

std::string own_stack() {
  constexpr int kMostFrames = 48;
  std::array<void*, kMostFrames> frames;
  const int count = backtrace(frames.data(), kMostFrames);
  std::string text;
  for (int i = 1; i < count; ++i) text += fmt::format("      {}\n", frame_text(frames[i]));
  return text;
}

}  // namespace sluice::simulation
