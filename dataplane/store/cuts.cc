// Arming, taking, reading and dropping cuts: rules 3 to 5 of store.h.
//
// Order of events, each durable before the next: row "armed"; checkpoint folder, complete; row
// "taken" with last_cut; only then is the gate opened for a write stamped after T. Whatever a crash
// finds, an armed cut that is not taken can be taken again, for nothing stamped after T was
// applied. The cut's slot digests are the meta rows inside its checkpoint: they were written in the
// same batches as its records.
#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "dataplane/store/checkpoint.h"
#include "dataplane/store/slot_scan.h"
#include "dataplane/store/store_impl.h"

namespace sluice {
namespace {

// A backup's name becomes a folder's name.
absl::Status check_backup(std::string_view backup) {
  const bool legal = !backup.empty() && backup.size() <= 64 &&
                     std::all_of(backup.begin(), backup.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                              (c >= 'A' && c <= 'Z') || c == '-';
                     });
  if (legal) return absl::OkStatus();
  return invalid_argument("a backup's name of {} bytes that is no UUID", backup.size());
}

absl::Status remove_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) return errno_status(error.value(), fmt::format("removing {}", folder));
  return absl::OkStatus();
}

class DbCutReader final : public CutReader {
 public:
  DbCutReader(std::shared_ptr<const StoreDb> db, std::vector<SlotDigest> digests)
      : scans_(std::make_shared<CutScans>(std::move(db))), digests_(std::move(digests)) {}

  std::unique_ptr<SlotScan> scan(uint32_t slot) override { return scans_->scan(slot); }
  const std::vector<SlotDigest>& digests() const override { return digests_; }

 private:
  const std::shared_ptr<CutScans> scans_;
  const std::vector<SlotDigest> digests_;
};

}  // namespace

std::string StoreImpl::cut_folder(std::string_view backup) const {
  return fmt::format("{}/cuts/{}", options_.folder, backup);
}

std::optional<CutInfo> StoreImpl::find_cut(std::string_view backup) const {
  const MutexLock lock(state_mutex_);
  const auto known = cuts_.find(backup);
  return known == cuts_.end() ? std::nullopt : std::optional(known->second);
}

absl::Status StoreImpl::load_cuts() {
  std::string row;
  SLUICE_ASSIGN_OR_RETURN(bool has_last, db_->get_meta(kLastCutRow, &row));
  if (defect(Defect::kLastCutIsForgotten)) has_last = false;
  if (has_last && !decode_u64(row, &last_cut_))
    return data_loss("the last cut in {} is unreadable", options_.folder);
  SLUICE_RETURN_IF_ERROR(
      db_->each_meta(kCutPrefix, [this](std::string_view backup, std::string_view value) {
        CutInfo cut;
        if (!check_backup(backup).ok() || !decode_cut(backup, value, &cut)) {
          return data_loss("a cut in {} is unreadable", options_.folder);
        }
        if (!cut.taken) armed_ = cut;
        const MutexLock state(state_mutex_);
        cuts_[cut.backup] = cut;
        return absl::OkStatus();
      }));
  // Folders without a row are of cuts whose dropping was interrupted.
  std::error_code error;
  for (const auto& folder : std::filesystem::directory_iterator(options_.folder + "/cuts", error)) {
    const auto known = find_cut(folder.path().filename().string());
    if (!known.has_value() || !known->taken)
      SLUICE_RETURN_IF_ERROR(remove_folder(folder.path().string()));
  }
  if (error) return errno_status(error.value(), fmt::format("reading {}/cuts", options_.folder));
  const MutexLock lock(cut_mutex_);
  return armed_.has_value() ? take_cut_locked() : absl::OkStatus();
}

absl::Status StoreImpl::arm_cut(const CutInfo& cut) {
  absl::Status armed = write_armed(cut);
  // Also where nothing was written now: the attempt may have been.
  const absl::Status durable = sync_.wait(sync_.last());
  return durable.ok() ? armed : fail(durable);
}

absl::Status StoreImpl::write_armed(const CutInfo& cut) {
  SLUICE_RETURN_IF_ERROR(check_backup(cut.backup));
  if (cut.cut >= HybridClock::kPeerLimit - 1) {
    return invalid_argument("the cut of backup {} at {:#x}: no clock passes it", cut.backup,
                            cut.cut);
  }
  const MutexLock lock(cut_mutex_);
  SLUICE_RETURN_IF_ERROR(check_writable());
  if (const auto known = find_cut(cut.backup); known.has_value()) {
    if (known->cut == cut.cut && known->epoch == cut.epoch) return absl::OkStatus();
    if (known->taken) {
      return already_exists(
          "the cut of backup {} was taken at {:#x}, epoch {}: it cannot be armed at {:#x}, epoch "
          "{}",
          cut.backup, known->cut, known->epoch, cut.cut, cut.epoch);
    }
  } else if (armed_.has_value()) {
    return already_exists("the cut of backup {} is armed and not taken", armed_->backup);
  }
  std::lock_guard gate(gate_);
  // Whatever was applied had moved the clock first: a clock that has not passed T proves that
  // nothing after T is here.
  if (const uint64_t now = clock_->now(); now > cut.cut && !defect(Defect::kArmedTooLate)) {
    return out_of_range("missed: the clock is at {} ms, the cut of backup {} at {} ms",
                        Version::stamp_ms(now), cut.backup, Version::stamp_ms(cut.cut));
  }
  CutInfo armed = cut;
  armed.taken = false;
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(put_cut(armed, batch));
  // The clock will be moved past the cut: what that needs to be durable goes with it.
  const auto write = [&](uint64_t ceiling) {
    const absl::Status added = rocksdb_status(
        batch.Put(db_->meta(), to_slice(kCeilingRow), encode_u64(ceiling)), "making a batch");
    return added.ok() ? write_durably(batch) : added;
  };
  SLUICE_RETURN_IF_ERROR(clock_->reserve(armed.cut + 1, write));
  {
    const MutexLock state(state_mutex_);
    cuts_[armed.backup] = armed;
  }
  armed_ = std::move(armed);
  return absl::OkStatus();
}

absl::StatusOr<bool> StoreImpl::take_due_cut() {
  const MutexLock lock(cut_mutex_);
  if (!armed_.has_value()) return true;
  SLUICE_RETURN_IF_ERROR(check_writable());
  if (clock_->now() <= armed_->cut) return false;
  SLUICE_RETURN_IF_ERROR(take_cut_locked());
  return true;
}

absl::Status StoreImpl::take_cut_locked() {
  const std::string folder = cut_folder(armed_->backup);
  SLUICE_RETURN_IF_ERROR(take_back_record());
  SLUICE_RETURN_IF_ERROR(remove_folder(folder));
  SLUICE_RETURN_IF_ERROR(prepare_checkpoint(*db_));
  std::lock_guard gate(gate_);
  SLUICE_RETURN_IF_ERROR(make_checkpoint(*db_, folder));
  // It was made of the logs.
  SLUICE_RETURN_IF_ERROR(db_->lacks_nothing());
  CutInfo taken = *armed_;
  taken.taken = true;
  const absl::Status recorded = record_taken(taken);
  // Also where that failed: it may become durable once there is room, and then it is this
  // checkpoint that counts.
  last_cut_ = std::max(last_cut_, taken.cut);
  may_be_recorded_ = !recorded.ok();
  SLUICE_RETURN_IF_ERROR(recorded);
  armed_.reset();
  // No writer changes them now: they are what the checkpoint holds.
  last_taken_ = {taken.backup, digests_};
  return absl::OkStatus();
}

// Before the checkpoint goes that it speaks of.
absl::Status StoreImpl::take_back_record() {
  if (!may_be_recorded_) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(put_cut(*armed_, batch));
  SLUICE_RETURN_IF_ERROR(write_durably(batch));
  may_be_recorded_ = false;
  return absl::OkStatus();
}

absl::Status StoreImpl::miss_cuts_before(uint64_t stamp) {
  const MutexLock lock(cut_mutex_);
  std::lock_guard gate(gate_);
  if (stamp <= last_cut_) return absl::OkStatus();
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch.Put(db_->meta(), to_slice(kLastCutRow), encode_u64(stamp)), "making a batch"));
  SLUICE_RETURN_IF_ERROR(write_durably(batch));
  last_cut_ = stamp;
  return absl::OkStatus();
}

absl::Status StoreImpl::put_cut(const CutInfo& cut, rocksdb::WriteBatch& batch) const {
  return rocksdb_status(batch.Put(db_->meta(), cut_row_key(cut.backup), encode_cut(cut)),
                        "making a batch");
}

absl::Status StoreImpl::record_taken(const CutInfo& cut) {
  rocksdb::WriteBatch batch;
  SLUICE_RETURN_IF_ERROR(put_cut(cut, batch));
  SLUICE_RETURN_IF_ERROR(rocksdb_status(
      batch.Put(db_->meta(), to_slice(kLastCutRow), encode_u64(std::max(last_cut_, cut.cut))),
      "making a batch"));
  SLUICE_RETURN_IF_ERROR(write_durably(batch));
  const MutexLock lock(state_mutex_);
  cuts_[cut.backup] = cut;
  return absl::OkStatus();
}

std::vector<CutInfo> StoreImpl::cuts() const {
  const MutexLock lock(state_mutex_);
  std::vector<CutInfo> copy;
  copy.reserve(cuts_.size());
  for (const auto& [backup, cut] : cuts_) copy.push_back(cut);
  return copy;
}

absl::StatusOr<std::shared_ptr<CutReader>> StoreImpl::open_cut(std::string_view backup) {
  const MutexLock lock(cut_mutex_);
  const auto known = find_cut(backup);
  if (!known.has_value()) return not_found("no cut of backup {} is here", backup);
  if (!known->taken) return failed_precondition("the cut of backup {} is armed, not taken", backup);
  if (const auto open = readers_.find(backup); open != readers_.end()) {
    if (std::shared_ptr<CutReader> reader = open->second.reader.lock()) return reader;
  }
  SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<StoreDb> db,
                          StoreDb::open_read_only(cut_folder(backup), cache_, options_.env));
  std::vector<SlotDigest> digests(digests_.size());
  SLUICE_RETURN_IF_ERROR(db->each_meta(kDigestPrefix, [&](std::string_view slot_part,
                                                          std::string_view row) {
    const uint32_t slot =
        slot_part.size() == sizeof(uint32_t) ? get_big_endian32(slot_part.data()) : ~uint32_t{0};
    if (slot >= digests.size() || !decode_digest(row, &digests[slot])) {
      return data_loss("a slot digest of the cut of backup {} is unreadable", backup);
    }
    return absl::OkStatus();
  }));
  OpenCut& open = readers_[std::string(backup)];
  open.db = db;
  auto reader = std::make_shared<DbCutReader>(std::move(db), std::move(digests));
  open.reader = reader;
  return reader;
}

absl::StatusOr<std::vector<SlotDigest>> StoreImpl::cut_digests(std::string_view backup) {
  {
    const MutexLock lock(cut_mutex_);
    if (last_taken_.backup == backup) return last_taken_.digests;
  }
  SLUICE_ASSIGN_OR_RETURN(const auto open, open_cut(backup));
  return open->digests();
}

absl::Status StoreImpl::drop_cut(std::string_view backup) {
  SLUICE_RETURN_IF_ERROR(check_backup(backup));
  const MutexLock lock(cut_mutex_);
  if (const auto open = readers_.find(backup); open != readers_.end()) {
    if (!open->second.db.expired())
      return failed_precondition("the cut of backup {} is being read", backup);
    readers_.erase(open);
  }
  if (last_taken_.backup == backup) last_taken_ = {};
  if (find_cut(backup).has_value()) {
    rocksdb::WriteBatch batch;
    SLUICE_RETURN_IF_ERROR(
        rocksdb_status(batch.Delete(db_->meta(), cut_row_key(backup)), "making a batch"));
    std::lock_guard gate(gate_);
    SLUICE_RETURN_IF_ERROR(write_durably(batch));
    if (armed_.has_value() && armed_->backup == backup) armed_.reset();
    const MutexLock state(state_mutex_);
    cuts_.erase(std::string(backup));
  }
  // The row goes first: a crash in between leaves a folder that nobody knows, which the next start
  // removes.
  return remove_folder(cut_folder(backup));
}

}  // namespace sluice
