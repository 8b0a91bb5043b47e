#include "control/peers/rpc.h"
#include "control/proto/sluice.pb.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

enum Answer : char { kScan, kExport, kRead, kDigests, kResult };

std::string input(Answer answer, char how, const std::string& bytes) {
  return std::string{answer, how} + bytes;
}

std::string pages_of(const std::vector<std::string>& pages) {
  v1::PlanReply reply;
  for (const std::string& page : pages) reply.add_chunks(page);
  return reply.SerializeAsString();
}

v1::ScanItem item_of(const std::string& key, const std::string& value, bool tombstone) {
  v1::ScanItem item;
  const RecordView record{key, value, {77, 1}, tombstone};
  fill(key, record.summary(), &item);
  item.set_value(value);
  return item;
}

void add_scans(std::vector<std::string>* inputs) {
  v1::ScanPage first;
  *first.add_items() = item_of("aba", "value", false);
  *first.add_items() = item_of("abb", "", true);
  v1::ScanPage second;
  *second.add_items() = item_of("abc", std::string(300, 'v'), false);
  const std::string pages = pages_of({first.SerializeAsString(), "", second.SerializeAsString()});
  for (char how = 8; how < 16; ++how) inputs->push_back(input(kScan, how, pages));
  for (v1::ScanPage* page : {&first, &second}) {
    for (v1::ScanItem& item : *page->mutable_items()) item.clear_value();
  }
  inputs->push_back(
      input(kScan, 0, pages_of({first.SerializeAsString(), second.SerializeAsString()})));
}

void add_exports(std::vector<std::string>* inputs) {
  std::vector<std::string> pages;
  for (uint32_t slot = 0; slot < 2; ++slot) {
    v1::ExportPage page;
    page.set_slot(slot);
    for (int i = 0; i < 40; ++i) {
      std::string key = "a" + std::to_string(10 + i);
      if (slot_of(key, 1) != slot) continue;
      auto* item = page.add_items();
      item->set_key(std::move(key));
      item->set_value("value");
      if (page.items_size() % 4 != 0) continue;
      pages.push_back(page.SerializeAsString());
      page.clear_items();
    }
    page.set_slot_done(true);
    pages.push_back(page.SerializeAsString());
  }
  for (char how = 0; how < 4; ++how) inputs->push_back(input(kExport, how, pages_of(pages)));
}

void add_others(std::vector<std::string>* inputs) {
  v1::ReadReply reply;
  reply.add_results()->set_found(true);
  fill(RecordView{"a", "value", {77, 1}, false}, reply.mutable_results(0)->mutable_record());
  inputs->push_back(input(kRead, 0, reply.SerializeAsString()));
  std::vector<SlotDigest> digests(3);
  digests[1].records = 5;
  inputs->push_back(input(kDigests, 3, encode_digests(digests)));
  v1::RestorePartResult result;
  result.set_slot_bits(4);
  result.set_records(10);
  auto* slot = result.add_expected();
  slot->set_slot(1);
  slot->set_digest(encode_digests({digests[1]}));
  auto* stage = result.add_stages();
  stage->set_node("n2");
  stage->set_stage("wire");
  stage->set_busy_ms(7);
  result.add_lacking()->set_node("n2");
  inputs->push_back(input(kResult, 1, result.SerializeAsString()));
}

TEST(Fuzz, AnswersOfNodesSurviveMutations) {
  std::vector<std::string> inputs;
  add_scans(&inputs);
  add_exports(&inputs);
  add_others(&inputs);
  run_mutations(inputs, 50'000);
}

}  // namespace
}  // namespace sluice::testing
