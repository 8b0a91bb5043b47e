#include "dataplane/store/manifest_end.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"
#include "tests/dataplane/store/store_fixture.h"

namespace sluice {
namespace {

class ManifestEnd : public StoreTest {
 protected:
  static std::string current(const std::string& folder) {
    std::string name = *read_file(folder + "/CURRENT", 1000);
    name.pop_back();
    return folder + "/" + name;
  }
};

TEST_F(ManifestEnd, IsFoundOnlyWhereTheFileEnds) {
  store_.reset();
  const std::string folder = options().folder + "/records";
  EXPECT_TRUE(*manifest_ends_whole(folder));
  const std::string manifest = *read_file(current(folder), 1 << 20);
  size_t records = 0;
  for (size_t size = 0; size <= manifest.size(); ++size) {
    records += ends_whole(std::string_view(manifest).substr(0, size)) ? 1 : 0;
  }
  EXPECT_TRUE(ends_whole(manifest));
  // Whole is what ends behind a record, or before the first.
  EXPECT_GT(records, 2u);
  EXPECT_LT(records, manifest.size() / 10);
}

TEST_F(ManifestEnd, ALongRecordHasSeveralFragments) {
  const auto fragment = [](uint8_t type, size_t size) {
    std::string bytes(7 + size, 'x');
    bytes[4] = static_cast<char>(size & 0xff);
    bytes[5] = static_cast<char>(size >> 8);
    bytes[6] = static_cast<char>(type);
    return bytes;
  };
  const size_t rest_of_block = (32 << 10) - 7;
  const std::string first = fragment(2, rest_of_block);
  const std::string middle = fragment(3, rest_of_block);
  EXPECT_FALSE(ends_whole(first));
  EXPECT_FALSE(ends_whole(first + middle));
  EXPECT_TRUE(ends_whole(first + middle + fragment(4, 10)));
  EXPECT_FALSE(ends_whole(first + fragment(1, 10)));
  EXPECT_FALSE(ends_whole(fragment(4, 10)));
  EXPECT_FALSE(ends_whole(fragment(1, 10).substr(0, 12)));
  EXPECT_FALSE(ends_whole(fragment(9, 10)));
  // What is left of a block and too short for a header is padding.
  EXPECT_TRUE(ends_whole(fragment(1, rest_of_block - 3) + "000" + fragment(1, 10)));
}

// As after a loss of power: the list is cut short, and nothing is missing.
TEST_F(ManifestEnd, AStoreThatLacksNothingOpensBehindATornRecord) {
  apply(make_record("a", "1", stamp_at(1)));
  store_.reset();
  std::ofstream(current(options().folder + "/records"), std::ios::app | std::ios::binary) << "torn";
  EXPECT_FALSE(*manifest_ends_whole(options().folder + "/records"));
  open();
  EXPECT_EQ(get("a"), "1");
}

}  // namespace
}  // namespace sluice
