#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, ConfigurationReaderSurvivesMutations) {
  const std::vector<std::string> inputs = {
      "name = 'n1'\ncluster = 'sqlite:/c.db'\ndata_folder = '/d/'\n",
      "# all of them\nname = \"n1\"\ncluster = \"etcd://h:2379/p\"\ndata_folder = \"/d\"\n"
      "archive_folder = \"/a\"\ncontrol_listen = \"127.0.0.1:0\"\ndata_listen = \"127.0.0.1:0\"\n"
      "driver = \"tcp\"\nweight = 2.5\nrack = \"r1\"\narena_bytes = 268435456\n"
      "memtable_bytes = 67108864\nblock_cache_bytes = 0x4000000\naccept_data_loss = false\n"
      "lease_ms = 3000\nrebalance_after_ms = 10_000\n[limits]\nbytes_per_second = 1048576\n",
      "name = 'n1'\nweight = inf\n[[limits]]\nbytes_per_second = 1979-05-27T07:32:00Z\n",
      "name = \"\"\"\\u00e4\n\"\"\"\nlimits = { bytes_per_second = 0b101 }\n",
      "a.b.\"c d\" = [[[1, 2.5], ['x']], {}]\n"};
  run_mutations(inputs, 60'000);
}

}  // namespace
}  // namespace sluice::testing
