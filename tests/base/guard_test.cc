#include "base/guard.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#include "base/status.h"

namespace sluice {
namespace {

TEST(Guard, ReturnsWhatRanAndTurnsExceptionsIntoStatuses) {
  EXPECT_TRUE(guarded("work", [] {}).ok());
  EXPECT_TRUE(absl::IsNotFound(guarded("work", [] { return not_found("x"); })));
  EXPECT_TRUE(
      absl::IsResourceExhausted(guarded("work", []() -> absl::Status { throw std::bad_alloc(); })));
  EXPECT_TRUE(absl::IsResourceExhausted(guarded("work", [] {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  })));
  const absl::Status other = guarded("work", [] { throw std::length_error("too long"); });
  EXPECT_TRUE(absl::IsInternal(other));
  EXPECT_NE(message_of(other).find("work"), std::string_view::npos);
  EXPECT_NE(message_of(other).find("too long"), std::string_view::npos);
  EXPECT_TRUE(absl::IsInternal(guarded("work", [] { throw 7; })));
}

TEST(Guard, AThreadEndsWithItsException) {
  auto thread = start_thread("thread", [] { throw std::runtime_error("inside"); });
  ASSERT_TRUE(thread.ok());
  thread->join();
  guarded_thread("thread", [] { throw std::runtime_error("inside"); }).join();
}

}  // namespace
}  // namespace sluice
