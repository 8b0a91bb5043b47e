// Drives a fuzz entry point in every build: with valid inputs, with the corpus of its fuzzer, where
// every input that ever failed stays, and with seeded mutations of both.
//
// With SLUICE_FUZZ_SEEDS=DIRECTORY in the environment it writes the valid inputs there instead:
// what a fuzzer begins with (scripts/fuzz).
#ifndef SLUICE_TESTS_FUZZ_MUTATIONS_H_
#define SLUICE_TESTS_FUZZ_MUTATIONS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace sluice::testing {

inline std::string mutate(std::string bytes, const std::vector<std::string>& inputs,
                          Random& random) {
  const size_t edits = 1 + random.below(4);
  for (size_t i = 0; i < edits && !bytes.empty(); ++i) {
    const size_t at = random.below(bytes.size());
    switch (random.below(6)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random.next());
        break;
      case 2:
        bytes.erase(at, 1 + random.below(16));
        break;
      case 3:
        bytes.insert(at, std::string(1 + random.below(16), static_cast<char>(random.next())));
        break;
      case 4: {
        // Extremes where a length may be.
        const uint8_t extremes[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        const size_t count = std::min<size_t>(bytes.size() - at, 1 + random.below(8));
        bytes.replace(at, count, std::string(count, static_cast<char>(extremes[random.below(5)])));
        break;
      }
      default: {
        const std::string& other = inputs[random.below(inputs.size())];
        const size_t from = random.below(other.size());
        bytes.replace(at, std::string::npos, other.substr(from));
        break;
      }
    }
  }
  return bytes;
}

inline std::vector<std::string> read_corpus() {
  std::vector<std::filesystem::path> files;
  for (const auto& file : std::filesystem::directory_iterator(SLUICE_FUZZ_CORPUS)) {
    files.push_back(file.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> corpus;
  for (const std::filesystem::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return corpus;
}

inline void write_seeds(const std::vector<std::string>& inputs, const std::string& directory) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::ofstream(directory + "/seed-" + std::to_string(i), std::ios::binary) << inputs[i];
  }
}

// The inputs are valid ones.
inline void run_mutations(std::vector<std::string> inputs, uint64_t rounds) {
  if (const char* seeds = std::getenv("SLUICE_FUZZ_SEEDS"); seeds != nullptr) {
    write_seeds(inputs, seeds);
    return;
  }
  std::vector<std::string> corpus = read_corpus();
  EXPECT_FALSE(corpus.empty()) << SLUICE_FUZZ_CORPUS;
  std::move(corpus.begin(), corpus.end(), std::back_inserter(inputs));
  for (const std::string& input : inputs) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
  std::erase(inputs, "");
  for (uint64_t seed = 0; seed < rounds; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const std::string bytes = mutate(inputs[random.below(inputs.size())], inputs, random);
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_FUZZ_MUTATIONS_H_
