// The chunks of a tree import's large files, from before the first is written until they are
// removed (tree_entry.h).
#ifndef SLUICE_TREE_TREE_GENERATIONS_H_
#define SLUICE_TREE_TREE_GENERATIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "tree/record_stream.h"

namespace sluice {

// Thread-safe but for collect(), which comes when everything else is done.
class TreeGenerations {
 public:
  static constexpr size_t kMaxReplaced = 65'536;  // chunked files looked at by one collect(), and
  static constexpr size_t kMaxStrays = 1'000;     // of these, of paths that were not imported

  TreeGenerations(RecordStore& store, std::string prefix)
      : store_(store), prefix_(std::move(prefix)) {}
  ~TreeGenerations() { await_look(); }
  TreeGenerations(const TreeGenerations&) = delete;
  TreeGenerations& operator=(const TreeGenerations&) = delete;

  // Begins to look, beside the import, for what earlier ones left: asked at the end it would take
  // as long, with nothing else going on. First of all.
  void look_for_earlier();
  // Draws the generations of this import and claims them. Before any of the next two; later calls
  // do nothing. An import of small files alone needs none, and so no cluster block that can be
  // written.
  absl::Status begin();

  // The generation of an attempt, from 0 to 3, at any file.
  uint64_t of_attempt(int attempt) const { return base_ | static_cast<uint64_t>(attempt); }
  // To be asked right before a record that names a generation is written.
  absl::Status check() { return claim_->check(); }

  // A path that this import has a record for, now acknowledged; `generation` is 0 for what has no
  // chunks.
  void note_imported(std::string_view path, uint64_t generation);
  // Counts the generation records written.
  void note_record() {
    const MutexLock lock(mutex_);
    ++records_;
  }

  // Removes chunks whose file's record names another generation, or that have none; those of
  // imports that still run stay. OK does not mean that all could be removed: see leftovers().
  absl::Status collect(const std::function<bool()>& cancelled);
  uint64_t removed() const { return removed_; }
  bool leftovers() const { return leftovers_; }

 private:
  struct Candidate {
    std::string path;
    uint64_t generation = 0;
    uint32_t chunks = 0;
    uint64_t base() const;
  };
  void await_look();
  absl::StatusOr<std::vector<Candidate>> find();
  absl::StatusOr<std::unique_ptr<RecordClaim>> claim_when_free(uint64_t base, Deadline& deadline);
  // Of the candidates, those that no file's record names.
  std::vector<Candidate> unneeded(const std::vector<Candidate>& candidates);
  void remove(const std::vector<Candidate>& candidates);

  RecordStore& store_;
  const std::string prefix_;
  Mutex look_mutex_;
  std::thread look_ SLUICE_GUARDED_BY(look_mutex_);
  bool none_earlier_ = false;  // no generation record of the prefix, once look_ has ended
  Mutex mutex_;
  uint64_t base_ = 0;  // 0: nothing was drawn
  std::unique_ptr<RecordClaim> claim_;
  std::unordered_set<uint64_t> imported_ SLUICE_GUARDED_BY(mutex_);  // digests of paths
  std::unordered_map<uint64_t, uint64_t> generations_
      SLUICE_GUARDED_BY(mutex_);  // by digest of the path
  uint64_t records_ SLUICE_GUARDED_BY(mutex_) = 0;
  uint64_t removed_ = 0;
  bool leftovers_ = false;
};

}  // namespace sluice

#endif  // SLUICE_TREE_TREE_GENERATIONS_H_
