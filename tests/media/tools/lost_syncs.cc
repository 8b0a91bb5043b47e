// Preloaded: syncs of files whose path contains LOST_SYNCS report success and do nothing, as a
// program that forgot them would. Shows that a test of power failures notices a missing sync.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool is_lost(int fd) {
  char link[64];
  char path[PATH_MAX] = "";
  const char* lost = std::getenv("LOST_SYNCS");
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return lost != nullptr && readlink(link, path, sizeof path - 1) > 0 &&
         std::strstr(path, lost) != nullptr;
}

int passed_on(const char* call, int fd) {
  if (is_lost(fd)) return 0;
  return reinterpret_cast<int (*)(int)>(dlsym(RTLD_NEXT, call))(fd);
}

}  // namespace

extern "C" {
int fsync(int fd) { return passed_on("fsync", fd); }
int fdatasync(int fd) { return passed_on("fdatasync", fd); }
int syncfs(int fd) noexcept { return passed_on("syncfs", fd); }
}
