#include "dataplane/pipeline/write_lots.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/random.h"
#include "base/status.h"
#include "dataplane/stream/hello.h"

namespace sluice {
namespace {

constexpr int64_t kLeastPatienceMs = 100;
constexpr uint32_t kMaxSenders = 1 << 20;

}  // namespace

std::string LotEnd::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put_string(sender);
  out.put<uint32_t>(senders);
  out.put<uint64_t>(token);
  return bytes;
}

absl::StatusOr<LotEnd> LotEnd::decode(std::string_view payload) {
  ByteReader in(payload);
  LotEnd end;
  std::string_view sender;
  if (!in.get_string(&sender, Hello::kMaxNameBytes) || !in.get(&end.senders) ||
      !in.get(&end.token) || !in.done() || end.senders == 0 || end.senders > kMaxSenders) {
    return data_loss("damaged end of a lot");
  }
  end.sender = sender;
  return end;
}

std::shared_ptr<WriteLots::Lot> WriteLots::find_or_make(uint64_t number) {
  if (const auto known = lots_.find(number); known != lots_.end()) return known->second;
  if (lots_.size() >= options_.max_lots) return nullptr;
  auto lot = std::make_shared<Lot>();
  // Not to be mistaken for a token that was given before a restart.
  if (last_token_ == 0) last_token_ = entropy() >> 1;
  lot->token = ++last_token_;
  lot->ingest = store_.begin_ingest();
  lot->heard_ns = clock_.monotonic_ns();
  lots_.emplace(number, lot);
  return lot;
}

absl::StatusOr<uint64_t> WriteLots::add(uint64_t number, std::span<const uint8_t> block) {
  std::shared_ptr<Lot> lot;
  {
    const MutexLock lock(mutex_);
    if (bytes_ + block.size() > options_.max_bytes) {
      return resource_exhausted("{} MiB are kept for lots", options_.max_bytes >> 20);
    }
    lot = find_or_make(number);
    if (lot == nullptr) return resource_exhausted("{} lots are open", options_.max_lots);
    ++lot->adding;
  }
  const absl::StatusOr<uint64_t> added = lot->ingest->add(block);
  const MutexLock lock(mutex_);
  --lot->adding;
  lot->heard_ns = clock_.monotonic_ns();
  if (!added.ok()) return added.status();
  bytes_ += *added;
  return lot->token;
}

void WriteLots::end(uint64_t number, const LotEnd& end, Answer answer) {
  std::shared_ptr<Lot> lot;
  {
    MutexLock lock(mutex_);
    const auto known = lots_.find(number);
    const bool open = known != lots_.end() && (end.token == 0 || known->second->token == end.token);
    if (!open && end.token != 0) {
      const auto told = std::find_if(outcomes_.begin(), outcomes_.end(),
                                     [&](const Outcome& each) { return each.token == end.token; });
      const absl::StatusOr<Result> result =
          told != outcomes_.end()
              ? told->result
              : failed_precondition("the blocks kept for a lot are gone: send them again");
      lock.unlock();
      answer(result);
      return;
    }
    lot = find_or_make(number);
    if (lot == nullptr) {
      lock.unlock();
      answer(Result());  // nothing was kept for this sender
      return;
    }
    lot->ended.insert(end.sender);
    lot->senders = std::max<size_t>(lot->senders, end.senders);
    lot->heard_ns = clock_.monotonic_ns();
    lot->waiting.push_back(std::move(answer));
    if (lot->ended.size() < lot->senders || lot->adding > 0) return;
    lots_.erase(number);
    patience_ms_ = std::min(patience_ms_ * 2, options_.patience_ms);
  }
  commit(lot);
}

bool WriteLots::is_ready(const Lot& lot, int64_t now) const {
  if (lot.adding > 0) return false;
  const int64_t silent_ms = (now - lot.heard_ns) / kMs;
  if (lot.ended.empty()) return silent_ms >= options_.idle_ms;
  return lot.ended.size() >= lot.senders || silent_ms >= patience_ms_;
}

void WriteLots::tick() {
  const int64_t now = clock_.monotonic_ns();
  std::vector<std::shared_ptr<Lot>> ready;
  {
    const MutexLock lock(mutex_);
    for (auto at = lots_.begin(); at != lots_.end();) {
      const std::shared_ptr<Lot> lot = at->second;
      if (!is_ready(*lot, now)) {
        ++at;
        continue;
      }
      at = lots_.erase(at);
      // Nobody asks for it any more: what was not confirmed is sent again.
      if (lot->ended.empty()) {
        bytes_ -= lot->ingest->bytes();
        continue;
      }
      if (lot->ended.size() < lot->senders) {
        patience_ms_ = std::max(patience_ms_ / 2, std::min(kLeastPatienceMs, patience_ms_));
      }
      ready.push_back(lot);
    }
  }
  for (const std::shared_ptr<Lot>& lot : ready) commit(lot);
}

void WriteLots::commit(const std::shared_ptr<Lot>& lot) {
  const uint64_t kept = lot->ingest->bytes();
  absl::StatusOr<Result> result;
  {
    Stage::Work work(options_.ingest);
    result = lot->ingest->commit();
    if (result.ok()) work.add(kept);
  }
  lot->ingest.reset();
  {
    const MutexLock lock(mutex_);
    bytes_ -= kept;
    outcomes_.push_back({lot->token, result});
    if (outcomes_.size() > options_.outcomes) outcomes_.pop_front();
  }
  for (const Answer& answer : lot->waiting) answer(result);
}

uint64_t WriteLots::bytes() const {
  const MutexLock lock(mutex_);
  return bytes_;
}

}  // namespace sluice
