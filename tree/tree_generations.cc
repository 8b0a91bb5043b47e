#include "tree/tree_generations.h"

#include <algorithm>

#include "base/checksum.h"
#include "base/clock.h"
#include "base/guard.h"
#include "base/random.h"
#include "base/status.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

constexpr uint64_t kAttemptMask = (uint64_t{1} << kAttemptBits) - 1;
constexpr size_t kMaxImported = size_t{4} << 20;  // paths remembered
constexpr int kDraws = 16;
constexpr int64_t kClaimPollMs = 200;
constexpr size_t kRemovedAtOnce = 1024;  // candidates

uint64_t digest_of(std::string_view path) { return xxh3_64(path); }

std::string claim_name(uint64_t base) { return fmt::format("tree-generation-{:010x}", base); }

}  // namespace

uint64_t TreeGenerations::Candidate::base() const { return generation & ~kAttemptMask; }

void TreeGenerations::look_for_earlier() {
  // What cannot be looked for now is looked for at the end.
  auto look = start_thread("looking for chunks of earlier imports", [this] {
    const auto there = store_.count(generation_prefix(prefix_));
    none_earlier_ = there.ok() && *there == 0;
  });
  const MutexLock lock(look_mutex_);
  if (look.ok()) look_ = *std::move(look);
}

void TreeGenerations::await_look() {
  const MutexLock lock(look_mutex_);
  if (look_.joinable()) look_.join();
}

absl::Status TreeGenerations::begin() {
  await_look();  // or it would find this import's own
  const MutexLock lock(mutex_);
  if (claim_ != nullptr) return absl::OkStatus();
  absl::Status status;
  for (int draw = 0; draw < kDraws; ++draw) {
    const uint64_t base = entropy() >> (64 - kGenerationBits) & ~kAttemptMask;
    if (base == 0) continue;  // 0 means: no chunks
    auto claim = store_.claim(claim_name(base));
    if (claim.ok()) {
      claim_ = *std::move(claim);
      base_ = base;
      return absl::OkStatus();
    }
    status = claim.status();
    if (!absl::IsAborted(status)) break;
  }
  return with_context(status, "claiming generations for the import");
}

void TreeGenerations::note_imported(std::string_view path, uint64_t generation) {
  const MutexLock lock(mutex_);
  if (imported_.size() < kMaxImported) imported_.insert(digest_of(path));
  if (generation != 0) generations_[digest_of(path)] = generation;
}

absl::StatusOr<std::vector<TreeGenerations::Candidate>> TreeGenerations::find() {
  std::vector<Candidate> replaced;
  std::vector<Candidate> strays;
  Random random(entropy());
  uint64_t strays_seen = 0;
  const std::string before = generation_prefix(prefix_);
  SLUICE_RETURN_IF_ERROR(
      store_.scan(before, [&](std::string_view key, std::string_view value) -> absl::Status {
        std::string_view path;
        uint64_t generation = 0;
        const auto entry = parse_tree_entry(value);
        if (!split_generation_key(key.substr(before.size()), &path, &generation) || !entry.ok() ||
            entry->header.kind != TreeKind::kGeneration || entry->header.generation != generation) {
          return absl::OkStatus();
        }
        const uint64_t digest = digest_of(path);
        const MutexLock lock(mutex_);
        const auto current = generations_.find(digest);
        if (current != generations_.end() && current->second == generation) return absl::OkStatus();
        Candidate candidate{std::string(path), generation,
                            static_cast<uint32_t>(entry->header.chunks())};
        const bool imported = imported_.contains(digest);
        // A record of this import that failed may have been written, or still be on its way.
        if (!imported && candidate.base() == base_) return absl::OkStatus();
        if (imported) {
          if (replaced.size() < kMaxReplaced) {
            replaced.push_back(std::move(candidate));
          } else {
            leftovers_ = true;
          }
          return absl::OkStatus();
        }
        // Any of them alike, so that each is looked at some day.
        ++strays_seen;
        if (strays.size() < kMaxStrays) {
          strays.push_back(std::move(candidate));
        } else if (const uint64_t at = random.below(strays_seen); at < kMaxStrays) {
          strays[at] = std::move(candidate);
        }
        return absl::OkStatus();
      }));
  replaced.insert(replaced.end(), std::make_move_iterator(strays.begin()),
                  std::make_move_iterator(strays.end()));
  return replaced;
}

absl::StatusOr<std::unique_ptr<RecordClaim>> TreeGenerations::claim_when_free(uint64_t base,
                                                                              Deadline& deadline) {
  while (true) {
    auto claim = store_.claim(claim_name(base));
    if (!absl::IsAborted(claim.status()) || !deadline.pause(kClaimPollMs)) return claim;
  }
}

std::vector<TreeGenerations::Candidate> TreeGenerations::unneeded(
    const std::vector<Candidate>& candidates) {
  std::vector<Candidate> found;
  for (const Candidate& candidate : candidates) {
    const auto value = store_.get(prefix_ + candidate.path);
    if (!value.ok()) {
      leftovers_ = true;
      continue;
    }
    if (value->has_value()) {
      const auto entry = parse_tree_entry(**value);
      // What cannot be understood is not judged.
      if (!entry.ok() && !absl::IsNotFound(entry.status())) continue;
      if (entry.ok() && entry->header.generation == candidate.generation) continue;
    }
    found.push_back(candidate);
  }
  return found;
}

void TreeGenerations::remove(const std::vector<Candidate>& candidates) {
  for (size_t begin = 0; begin < candidates.size(); begin += kRemovedAtOnce) {
    const size_t end = std::min(candidates.size(), begin + kRemovedAtOnce);
    // The generation's record goes last: while it is there the chunks are known of.
    for (const bool chunks : {true, false}) {
      const auto writer = store_.writer();
      absl::Status status;
      for (size_t i = begin; i < end && status.ok(); ++i) {
        const Candidate& candidate = candidates[i];
        if (!chunks) {
          status = writer->erase(generation_key(prefix_, candidate.path, candidate.generation));
          continue;
        }
        for (uint32_t chunk = 0; chunk < candidate.chunks && status.ok(); ++chunk) {
          status =
              writer->erase(tree_chunk_key(prefix_ + candidate.path, candidate.generation, chunk));
        }
      }
      const SinkTotals totals = writer->finish();
      removed_ += totals.records;
      if (!status.ok() || totals.failures.count > 0) {
        leftovers_ = true;
        break;
      }
    }
  }
}

absl::Status TreeGenerations::collect(const std::function<bool()>& cancelled) {
  await_look();
  // Every generation record is one that this import wrote and that counts, or of an import that
  // runs at the same time and removes its own.
  {
    const MutexLock lock(mutex_);
    if (none_earlier_ && records_ == generations_.size()) return absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(std::vector<Candidate> candidates, find());
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.base() < b.base(); });
  // An import that was killed a moment ago has its claim until its lease ends.
  Deadline deadline(system_clock(), store_.claim_ms() + 1'000);
  for (size_t begin = 0; begin < candidates.size();) {
    if (cancelled()) return sluice::cancelled("cancelled");
    const uint64_t base = candidates[begin].base();
    size_t end = begin;
    while (end < candidates.size() && candidates[end].base() == base) ++end;
    std::vector<Candidate> group(candidates.begin() + static_cast<ptrdiff_t>(begin),
                                 candidates.begin() + static_cast<ptrdiff_t>(end));
    begin = end;
    // Most are needed: what is not is asked for again once its import is known to have ended, as it
    // could write the record that names them until then.
    group = unneeded(group);
    if (group.empty()) continue;
    std::unique_ptr<RecordClaim> claim;
    if (base != base_) {
      auto claimed = claim_when_free(base, deadline);
      if (absl::IsAborted(claimed.status())) continue;  // it runs, and removes them itself
      if (!claimed.ok()) return claimed.status();
      claim = *std::move(claimed);
      group = unneeded(group);
    }
    remove(group);
  }
  return absl::OkStatus();
}

}  // namespace sluice
