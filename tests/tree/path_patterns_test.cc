#include "tree/path_patterns.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice {
namespace {

PathPatterns patterns(const std::vector<std::string>& texts) {
  PathPatterns all;
  for (const std::string& text : texts) EXPECT_TRUE(all.add(text).ok()) << text;
  return all;
}

bool excludes(const std::vector<std::string>& texts, std::string_view path,
              bool directory = false) {
  return patterns(texts).excludes_with_parents(path, directory);
}

TEST(PathPatterns, MatchAsInAGitignoreFile) {
  EXPECT_TRUE(excludes({"*.o"}, "a.o"));
  EXPECT_TRUE(excludes({"*.o"}, "deep/er/a.o"));
  EXPECT_TRUE(excludes({"*.o"}, ".o"));
  EXPECT_FALSE(excludes({"*.o"}, "a.obj"));
  EXPECT_TRUE(excludes({"/build"}, "build"));
  EXPECT_FALSE(excludes({"/build"}, "a/build"));
  EXPECT_TRUE(excludes({"a/b"}, "a/b"));
  EXPECT_FALSE(excludes({"a/b"}, "x/a/b"));
  EXPECT_TRUE(excludes({"cache/"}, "x/cache", true));
  EXPECT_FALSE(excludes({"cache/"}, "x/cache", false));
  EXPECT_TRUE(excludes({"cache/"}, "x/cache/file"));
  EXPECT_TRUE(excludes({"**/a"}, "a"));
  EXPECT_TRUE(excludes({"**/a"}, "x/y/a"));
  EXPECT_TRUE(excludes({"a/**/b"}, "a/b"));
  EXPECT_TRUE(excludes({"a/**/b"}, "a/x/y/b"));
  EXPECT_FALSE(excludes({"a/**/b"}, "x/a/b"));
  EXPECT_TRUE(excludes({"a/**"}, "a/x"));
  EXPECT_FALSE(excludes({"a/**"}, "a", true));
  EXPECT_TRUE(excludes({"a?c"}, "abc"));
  EXPECT_FALSE(excludes({"a?c"}, "a/c"));
  EXPECT_FALSE(excludes({"a*c/d"}, "a/c/d"));
  EXPECT_TRUE(excludes({"**"}, "anything"));
}

TEST(PathPatterns, TakeSetsAndEscapes) {
  EXPECT_TRUE(excludes({"[a-c]x"}, "bx"));
  EXPECT_FALSE(excludes({"[a-c]x"}, "dx"));
  EXPECT_TRUE(excludes({"[!a-c]x"}, "dx"));
  EXPECT_TRUE(excludes({"[]]x"}, "]x"));
  EXPECT_TRUE(excludes({"[ab"}, "[ab"));
  EXPECT_TRUE(excludes({"["}, "["));
  EXPECT_TRUE(excludes({"\\*"}, "*"));
  EXPECT_FALSE(excludes({"\\*"}, "a"));
  EXPECT_TRUE(excludes({"\\!a"}, "!a"));
  EXPECT_TRUE(excludes({"\xff*"}, "\xff\xfe"));
}

TEST(PathPatterns, TheLastThatMatchesDecides) {
  EXPECT_FALSE(excludes({"*.log", "!keep.log"}, "a/keep.log"));
  EXPECT_TRUE(excludes({"!keep.log", "*.log"}, "a/keep.log"));
  EXPECT_TRUE(excludes({"/a", "!/a/keep"}, "a/keep")) << "below what is left out nothing is taken";
  EXPECT_FALSE(excludes({"/a/*", "!/a/keep"}, "a/keep"));
}

TEST(PathPatterns, RefusesWhatMatchesNothing) {
  PathPatterns all;
  for (const char* text : {"", "/", "!", "//", "a//b", "../a", "a/.", "!/"})
    EXPECT_TRUE(absl::IsInvalidArgument(all.add(text))) << text;
  EXPECT_TRUE(
      absl::IsInvalidArgument(all.add(std::string(PathPatterns::kMaxPatternBytes + 1, 'a'))));
  EXPECT_TRUE(all.empty());
}

// Matching that tried all ways would take longer than anybody waits.
TEST(PathPatterns, HostilePatternsTakeTimeInProportion) {
  std::string pattern;
  std::string path;
  for (int i = 0; i < 500; ++i) {
    pattern += "**/a*a*a*a*/";
    path += "aaaaaaaaaaaaaaaaaaaa/";
  }
  EXPECT_FALSE(excludes({pattern.substr(0, 4000) + "/b"}, path + "c"));
  EXPECT_FALSE(excludes({std::string(2000, '*') + "b"}, std::string(4000, 'a')));
}

}  // namespace
}  // namespace sluice
