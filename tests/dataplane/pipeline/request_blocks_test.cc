#include "dataplane/pipeline/request_blocks.h"

#include <gtest/gtest.h>

#include "dataplane/archive/manifest.h"
#include "tests/dataplane/block/records.h"

namespace sluice {
namespace {

using testing::make_records;
using testing::pack;

constexpr uint32_t kBits = 4;

std::string block_of(uint32_t slot, size_t records) {
  Random random(slot + 1);
  return pack(make_records(random, slot, kBits, {.count = records}), slot, kBits).at(0);
}
void add(std::string* request, const std::string& block) {
  request->resize(padded(request->size()), 'p');
  *request += block;
}
absl::StatusOr<std::vector<RequestBlock>> split(const std::string& request, uint32_t bits = kBits) {
  return split_request({reinterpret_cast<const uint8_t*>(request.data()), request.size()}, bits);
}
std::string text_of(const RequestBlock& block) {
  return {reinterpret_cast<const char*>(block.bytes.data()), block.bytes.size()};
}

TEST(RequestBlocks, OneBlockIsTheWholeRequest) {
  const std::string block = block_of(3, 20);
  const auto blocks = split(block);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  ASSERT_EQ(blocks->size(), 1u);
  EXPECT_EQ(blocks->front().slot, 3u);
  EXPECT_EQ(text_of(blocks->front()), block);
}

TEST(RequestBlocks, SeveralStandAtMultiplesOfFourKiB) {
  std::vector<std::string> packed;
  std::string request;
  for (const auto& [slot, records] : {std::pair{5u, 1u}, {1u, 90u}, {5u, 40u}, {2u, 7u}}) {
    packed.push_back(block_of(slot, records));
    add(&request, packed.back());
  }
  const auto blocks = split(request);
  ASSERT_TRUE(blocks.ok()) << blocks.status();
  ASSERT_EQ(blocks->size(), packed.size());
  for (size_t i = 0; i < packed.size(); ++i) {
    EXPECT_EQ(text_of((*blocks)[i]), packed[i]) << i;
    EXPECT_EQ(((*blocks)[i].bytes.data() - (*blocks)[0].bytes.data()) % 4096, 0) << i;
  }
}

TEST(RequestBlocks, AnythingElseIsRefused) {
  const std::string first = block_of(1, 30);
  const std::string second = block_of(2, 30);
  std::string request = first;
  add(&request, second);
  // Cut off anywhere but behind the first block.
  for (size_t size = 0; size < request.size(); ++size) {
    if (size == first.size()) continue;
    EXPECT_EQ(split(request.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  for (const size_t more : {size_t{1}, size_t{4096}, size_t{9000}}) {
    EXPECT_EQ(split(request + std::string(more, '\0')).status().code(), absl::StatusCode::kDataLoss)
        << more;
  }
  EXPECT_EQ(split(request, kBits + 1).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace sluice
