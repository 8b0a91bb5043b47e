#include <gtest/gtest.h>

#include "tests/simulation/simulation.h"

int main(int argc, char** argv) {
  sluice::simulation::fix_addresses(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
