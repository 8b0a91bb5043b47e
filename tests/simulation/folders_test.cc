// Directories that are there are durable, whoever made them and was killed then.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/random.h"
#include "tests/simulation/mounts.h"
#include "tests/simulation/simulation.h"

namespace sluice::simulation {
namespace {

constexpr char kFolder[] = "/sim/n1/a/b/c";

// In a process of its own, until its end or its death.
void run_process(const std::function<void()>& body) {
  bool done = false;
  Process& process = Process::make("maker");
  process.start("main", [&] {
    body();
    done = true;
  });
  while (!done && !process.crashed()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// Killed at its `kill_at`-th call; the one after it is not killed, and the power is lost then.
std::string read_after(uint64_t seed, int kill_at, bool* was_killed) {
  std::string text;
  const Result result = run(seed, Options(), [&] {
    Disk disk(1);
    Random random(seed);
    Mount& mounted = mount("n1", disk);
    bool killed = false;
    mounted.before = [&, left = kill_at](FileCall, std::string_view) mutable {
      if (left-- != 0) return;
      killed = true;
      Process::current().crash();
    };
    run_process([] { make_folders(kFolder).IgnoreError(); });
    mounted.before = nullptr;
    run_process([] {
      if (!make_folders(kFolder).ok()) fail("making the directories");
      if (!write_file_durably(std::string(kFolder) + "/f", "kept").ok()) fail("writing the file");
    });
    disk.lose_power(random);
    const auto content = read_file(std::string(kFolder) + "/f", 100);
    output(std::string(killed ? "killed " : "whole ") + (content.ok() ? *content : "(none)"));
  });
  EXPECT_TRUE(result.passed()) << result.failure;
  *was_killed = result.output.starts_with("killed");
  return result.output.substr(result.output.find(' ') + 1);
}

TEST(Folders, OfAKilledProcessAreDurableOnceTheyAreMadeAgain) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    bool was_killed = true;
    int kills = 0;
    for (int kill_at = 0; was_killed; ++kill_at) {
      EXPECT_EQ(read_after(seed, kill_at, &was_killed), "kept") << "killed at call " << kill_at;
      if (was_killed) ++kills;
    }
    EXPECT_GT(kills, 6) << "so many calls there are at least";
  }
}

}  // namespace
}  // namespace sluice::simulation
