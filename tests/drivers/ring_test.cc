#include "drivers/ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>

#include "base/random.h"

namespace sluice {
namespace {

TEST(Ring, BehavesLikeADeque) {
  Ring<std::unique_ptr<int>> ring;
  std::deque<int> model;
  Random random(3);
  for (int i = 0; i < 5000; ++i) {
    if (random.chance(model.size() < 100 ? 0.6 : 0.3)) {
      ring.push_back(std::make_unique<int>(i));
      model.push_back(i);
    } else if (!model.empty()) {
      EXPECT_EQ(*ring.front(), model.front());
      EXPECT_EQ(*ring.pop_front(), model.front());
      model.pop_front();
    }
    ASSERT_EQ(ring.size(), model.size());
    ASSERT_EQ(ring.empty(), model.empty());
    if (!model.empty()) {
      const size_t at = random.below(model.size());
      ASSERT_EQ(*ring[at], model[at]);
    }
  }
}

TEST(Ring, DoesNotMoveWithinWhatWasReserved) {
  Ring<int> ring;
  ring.reserve(100);
  for (int round = 0; round < 3; ++round) {
    ring.push_back(0);
    const int* const first = &ring.front();
    for (int i = 1; i < 100; ++i) ring.push_back(i);
    EXPECT_EQ(&ring.front(), first);
    ring.reserve(50);
    EXPECT_EQ(&ring.front(), first);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(ring.pop_front(), i);
  }
  ring.reserve(1000);
  for (int i = 0; i < 1000; ++i) ring.push_back(i);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(ring.pop_front(), i);
}

}  // namespace
}  // namespace sluice
