#include "base/descriptor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "base/file.h"

namespace sluice {
namespace {

TEST(Descriptor, OnesThatSomebodyMadeNonBlockingAreWaitedFor) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd from(ends[0]);
  UniqueFd into(ends[1]);
  const std::string sent(size_t{1} << 20, 'x');  // more than a pipe holds
  std::thread writer([&] {
    EXPECT_EQ(write_all(into.get(), sent), 0);
    into.reset();
  });
  std::string got;
  char some[1000];
  while (true) {
    const ssize_t size = read_some(from.get(), some, sizeof some);
    ASSERT_GE(size, 0);
    if (size == 0) break;
    got.append(some, static_cast<size_t>(size));
  }
  writer.join();
  EXPECT_TRUE(got == sent);
  EXPECT_EQ(write_all(-1, "x"), EBADF);
  EXPECT_EQ(read_some(-1, some, 1), -EBADF);
}

}  // namespace
}  // namespace sluice
