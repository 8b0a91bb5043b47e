#include "base/process.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <sstream>
#include <string>
#include <vector>

namespace sluice {
namespace {

std::vector<std::string> parts_of(const std::string& identity) {
  std::istringstream text(identity);
  std::vector<std::string> parts;
  for (std::string part; std::getline(text, part, '/');) parts.push_back(part);
  return parts;
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, "/"));
}

// A child that waits to be killed, and what it says of itself.
class Child {
 public:
  Child() {
    int ends[2];
    if (::pipe(ends) != 0) return;
    process_ = ::fork();
    if (process_ == 0) {
      const std::string text = process_identity();
      (void)!::write(ends[1], text.data(), text.size());
      ::close(ends[1]);
      for (;;) ::pause();
    }
    ::close(ends[1]);
    char bytes[256];
    while (const ssize_t got = ::read(ends[0], bytes, sizeof bytes)) {
      if (got < 0) break;
      identity_.append(bytes, static_cast<size_t>(got));
      break;
    }
    ::close(ends[0]);
  }
  ~Child() { kill_and_forget(); }
  void kill() const { ::kill(process_, SIGKILL); }
  void kill_and_forget() {
    if (process_ <= 0) return;
    kill();
    ::waitpid(process_, nullptr, 0);
    process_ = 0;
  }
  // Dead, and not waited for.
  void await_death() const {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOWAIT);
  }
  const std::string& identity() const { return identity_; }

 private:
  pid_t process_ = 0;
  std::string identity_;
};

TEST(ProcessTest, AProcessThatRunsHasNotEnded) {
  EXPECT_FALSE(process_identity().empty());
  EXPECT_LE(process_identity().size(), kMaxProcessIdentity);
  EXPECT_EQ(process_identity(), process_identity());
  EXPECT_FALSE(has_surely_ended(process_identity()));
  const Child child;
  EXPECT_NE(child.identity(), process_identity());
  EXPECT_FALSE(has_surely_ended(child.identity()));
}

TEST(ProcessTest, AKilledProcessHasEndedWaitedForOrNot) {
  Child child;
  child.kill();
  child.await_death();
  EXPECT_TRUE(has_surely_ended(child.identity()));
  child.kill_and_forget();
  EXPECT_TRUE(has_surely_ended(child.identity()));
}

TEST(ProcessTest, AnotherProcessWithTheSameNumberIsAnotherOne) {
  std::vector<std::string> parts = parts_of(process_identity());
  parts.back() += "1";
  EXPECT_TRUE(has_surely_ended(joined(parts)));
}

TEST(ProcessTest, NothingIsSaidOfOtherMachinesAndBoots) {
  Child child;
  const std::vector<std::string> parts = parts_of(child.identity());
  ASSERT_EQ(parts.size(), 5u);
  child.kill_and_forget();
  ASSERT_TRUE(has_surely_ended(child.identity()));
  for (size_t i = 0; i < 3; ++i) {
    std::vector<std::string> other = parts;
    other[i] += "0";
    EXPECT_FALSE(has_surely_ended(joined(other))) << i;
  }
  for (const std::string& text :
       {std::string(), std::string("////"), std::string("garbage"),
        fmt::format("{}/{}/{}/-1/{}", parts[0], parts[1], parts[2], parts[4]),
        fmt::format("{}/{}/{}/1x/{}", parts[0], parts[1], parts[2], parts[4]),
        fmt::format("{}/{}/{}//{}", parts[0], parts[1], parts[2], parts[4])}) {
    EXPECT_FALSE(has_surely_ended(text)) << text;
  }
}

}  // namespace
}  // namespace sluice
