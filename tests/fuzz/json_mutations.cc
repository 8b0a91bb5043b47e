#include "control/cli/jsonl.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

TEST(Fuzz, JsonLineReaderSurvivesMutations) {
  const std::vector<std::string> inputs = {
      format_json_record("key", "value"),
      format_json_record("k\xff", std::string("\0\1\2", 3)),
      format_json_record("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\\\n\t"),
      R"({"key": "k", "value": "v"})",
      R"({"value_b64": "AAEC", "key_b64": "a2V5"})",
      R"( { "key" : "\u00e4\ud83d\ude00\n" , "value" : "", "other": [1, -2.5e3, null, {"key": true}] } )",
      R"({"key": "k", "key": "k", "value": "v"})",
      R"({"key": 1, "value": "v"})",
      "[[[[[[[[]]]]]]]]"};
  run_mutations(inputs, 100'000);
}

}  // namespace
}  // namespace sluice::testing
