#include <set>
#include <string>

#include "tests/tree/tree_fixture.h"

namespace sluice {
namespace {

class Mirror : public Tree {
 protected:
  TreeImportResult mirror(const std::string& prefix, TreeScanOptions scan = {}) {
    StreamProgress progress;
    TreeImportOptions all = options(in(), prefix, 2);
    all.mirror = true;
    all.scan = std::move(scan);
    const auto result = import_tree(all, records_, progress);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : TreeImportResult();
  }
  std::set<std::string> keys() {
    std::set<std::string> keys;
    for (const auto& record : records_.records()) keys.insert(record.first);
    return keys;
  }
};

TEST_F(Mirror, RemovesWhatTheTreeNoLongerHas) {
  write(in() / "kept", "1");
  write(in() / "gone", "2");
  write(in() / "large", random_bytes(3 * kTreeChunkBytes, 1));
  write(in() / "d/e/f", "3");
  write(in() / "becomes/x", "4");
  fs::create_symlink("kept", in() / "link");
  import("p/");
  fs::remove(in() / "gone");
  fs::remove(in() / "large");
  fs::remove(in() / "link");
  fs::remove_all(in() / "d");
  fs::remove_all(in() / "becomes");
  write(in() / "becomes", "a file");
  const TreeImportResult result = mirror("p/");
  EXPECT_EQ(result.mirrored, 7u);
  EXPECT_EQ(result.removed, 4u) << "chunks and their generation";
  EXPECT_EQ(keys(), (std::set<std::string>{"p/.", "p/becomes", "p/kept"}));
  EXPECT_EQ(mirror("p/").mirrored, 0u);
}

TEST_F(Mirror, LeavesAloneWhatIsNotTheTrees) {
  write(in() / "a", "1");
  import("p/");
  import("p/other/");
  import("");
  records_.records()["p/record"] = "not a tree entry";
  records_.records()["q"] = "not below the prefix";
  fs::remove(in() / "a");
  const TreeImportResult result = mirror("p/");
  EXPECT_EQ(result.mirrored, 1u);
  EXPECT_EQ(keys(),
            (std::set<std::string>{".", "a", "p/.", "p/other/.", "p/other/a", "p/record", "q"}));
  EXPECT_EQ(mirror("").mirrored, 1u) << "of a tree with roots of others below it";
  EXPECT_TRUE(records_.records().contains("p/other/a"));
}

TEST_F(Mirror, KeepsWhatIsLeftOutOrCannotBeSeen) {
  write(in() / "a.o", "1");
  write(in() / "build/x", "2");
  write(in() / "gone.c", "3");
  import("");
  fs::remove(in() / "a.o");
  fs::remove(in() / "gone.c");
  fs::remove_all(in() / "build");
  TreeScanOptions scan;
  ASSERT_TRUE(scan.exclude.add("*.o").ok());
  ASSERT_TRUE(scan.exclude.add("build/").ok());
  EXPECT_EQ(mirror("", scan).mirrored, 1u);
  EXPECT_EQ(keys(), (std::set<std::string>{".", "a.o", "build", "build/x"}));
}

// A name that stays has its content in the entry of another name.
TEST_F(Mirror, KeepsTheContentOfNamesThatStay) {
  for (const bool is_left_out : {true, false}) {
    SCOPED_TRACE(is_left_out);
    records_.records().clear();
    fs::remove_all(in());
    write(in() / "a", "content");
    write(in() / "unrelated", "x");
    fs::create_hard_link(in() / "a", in() / "z");
    import("");
    const auto records = records_.records();
    const bool a_is_first = records.at("a").size() > records.at("z").size();
    const std::string first = a_is_first ? "a" : "z";
    const std::string other = a_is_first ? "z" : "a";
    fs::remove(in() / first);
    fs::remove(in() / "unrelated");
    TreeScanOptions scan;
    if (is_left_out) {
      ASSERT_TRUE(scan.exclude.add(other).ok());
    } else {
      records_.refuse([&](std::string_view key) { return key == other; });
    }
    EXPECT_EQ(mirror("", scan).mirrored, 1u) << "the one that is not named";
    records_.refuse(nullptr);
    fs::remove_all(out());
    const TreeExportResult exported = export_to_out();
    EXPECT_EQ(exported.damaged.count, 0u);
    EXPECT_EQ(*read_file(out() / other, 1000), "content");
    // Once the name is read as what it is now, the other one goes.
    EXPECT_EQ(mirror("").mirrored, 1u);
    EXPECT_EQ(keys(), (std::set<std::string>{".", other}));
  }
}

TEST_F(Mirror, ReportsWhatCouldNotBeRemoved) {
  write(in() / "gone", "1");
  import("");
  fs::remove(in() / "gone");
  records_.refuse_erase([](std::string_view key) { return key == "gone"; });
  const TreeImportResult result = mirror("");
  EXPECT_EQ(result.mirrored, 0u);
  ASSERT_EQ(result.mirror_failures.count, 1u);
  EXPECT_EQ(result.mirror_failures.first[0].path, "gone");
}

}  // namespace
}  // namespace sluice
