#include "base/text.h"

#include <gtest/gtest.h>

#include <string>

#include "base/random.h"

namespace sluice {
namespace {

TEST(Base64, EncodesTheVectorsOfRfc4648) {
  EXPECT_EQ(base64_encode(""), "");
  EXPECT_EQ(base64_encode("f"), "Zg==");
  EXPECT_EQ(base64_encode("fo"), "Zm8=");
  EXPECT_EQ(base64_encode("foo"), "Zm9v");
  EXPECT_EQ(base64_encode("foobar"), "Zm9vYmFy");
}

TEST(Base64, RoundTripsAllBytes) {
  Random random(7);
  for (size_t size = 0; size < 300; ++size) {
    std::string bytes;
    for (size_t i = 0; i < size; ++i) bytes.push_back(static_cast<char>(random.below(256)));
    std::string back;
    ASSERT_TRUE(base64_decode(base64_encode(bytes), &back));
    ASSERT_EQ(back, bytes);
  }
}

TEST(Base64, RefusesWhatIsNotBase64) {
  std::string bytes;
  for (const char* bad :
       {"Zg", "Zg=", "Z===", "====", "Zh==", "Zm9=", "Zg==Zg==", "Zm9v Zm9v", "Zm9\n", "Zm-_"}) {
    EXPECT_FALSE(base64_decode(bad, &bytes)) << bad;
  }
}

TEST(Utf8, AcceptsAndRefusesByTheUnicodeTable) {
  for (const char* good :
       {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xc0\xaf", "\xc3", "\xe0\x9f\xbf", "\xed\xa0\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "a\xff"}) {
    EXPECT_FALSE(is_utf8(bad)) << bad;
  }
}

TEST(Printable, EscapesControlAndInvalidBytesAndCuts) {
  EXPECT_EQ(printable(std::string_view("a\0\x1b[\xff\xc3\xa4", 7)), "a\\x00\\x1b[\\xff\xc3\xa4");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace sluice
