#include "tests/dataplane/archive/small_archive.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, ArchiveFileReadersSurviveMutations) {
  Memory memory;
  std::vector<std::string> inputs;
  {
    const SmallArchive archive(memory, 2, 1, true, 3);
    for (const std::string& file : archive.files()) {
      if (file.find("segment-") == std::string::npos) inputs.push_back(slurp(file));
    }
  }
  ScratchFolder scratch(true);
  const auto writer = ArchiveWriter::open(test_options(scratch / "a", "n1"));
  ASSERT_TRUE(writer.ok());
  inputs.push_back(slurp(scratch / "a/journal"));
  for (uint32_t slot = 0; slot < 4; ++slot) {
    ASSERT_TRUE(append_slot(**writer, memory, make_slot(slot, 1)).ok());
    ASSERT_TRUE((*writer)->sync().ok());
  }
  inputs.push_back(slurp(scratch / "a/journal"));
  run_mutations(inputs, 40'000);
}

}  // namespace
}  // namespace sluice::testing
