// What clients of a simulated cluster wrote and were told, in simulated time; and whether what is
// read later can be. Every value names its write, so a value tells which it is of.
//
// A write that was acknowledged stands between its beginning and its end; one that was not may take
// effect at any time after its beginning, or never. One that a get has returned has taken effect by
// the get's end: what begins later is newer, and where `gets_settle` no later read has older
// values. Not thread-safe: a NoSwitch around each call.
#ifndef SLUICE_TESTS_SIMULATION_WORLD_HISTORY_H_
#define SLUICE_TESTS_SIMULATION_WORLD_HISTORY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/block/record.h"

namespace sluice::simulation {

class Process;

class History {
 public:
  struct Write {
    std::string key;
    bool erasure = false;
    size_t value_bytes = 0;
    int64_t begin_ns = 0;
    int64_t end_ns = INT64_MAX;   // of one that was acknowledged
    int64_t seen_ns = INT64_MAX;  // the first end of a get that returned it
    Version version = {};         // stamp 0: not known
    uint64_t as_of = 0;           // the stamp that it was acknowledged as of, if that is known
    // The client's next write of the key, which is in order behind it.
    std::optional<size_t> followed_by = std::nullopt;
    // Of the last completed restore of an archive that holds it.
    int64_t restore_begin_ns = -1;
    int64_t restore_end_ns = INT64_MAX;
    bool acknowledged() const { return end_ns != INT64_MAX; }
    int64_t effective_ns() const { return std::min(end_ns, seen_ns); }
  };

  explicit History(bool gets_settle = false) : gets_settle_(gets_settle) {}

  // The value to write; `number` is the write's.
  std::string begin(std::string_view key, size_t value_bytes, size_t* number);
  size_t begin_erasure(std::string_view key);
  // As begin(), by the client that wrote `before` to the key, which may not be acknowledged yet.
  std::string begin_behind(size_t before, size_t value_bytes, size_t* number);
  // With which version it is on its way, the only one that it ever has; an erasure by the process
  // that began it.
  void sent_with(std::string_view key, std::string_view value, bool erasure,
                 const Version& version);
  // What an answer says of the write that has this version.
  void counts_as_of(std::string_view key, const Version& version, uint64_t as_of);
  void acknowledged(size_t number);
  // A get that ends now has returned the value.
  void seen(std::string_view key, std::string_view value);

  // Of one replica, now: what it was told between these times. Acknowledged writes of that time
  // count as unacknowledged for reads that end later.
  void lost(int64_t from_ns, int64_t until_ns) { losses_.push_back({from_ns, until_ns}); }
  // A restore that began then has completed: all replicas have it again.
  void restored(std::string_view key, std::string_view value, int64_t begin_ns);

  // Why a read of that time must not have had this result (nullopt: no such key); empty: it may.
  std::string fault_of(std::string_view key, const std::optional<std::string>& value,
                       int64_t begin_ns, int64_t end_ns) const;
  // The write that a value is of; nullopt when it is of none to that key, or damaged.
  std::optional<size_t> write_of(std::string_view key, std::string_view value) const;

  const std::vector<Write>& writes() const { return writes_; }
  std::vector<std::string> keys() const;
  // The newest acknowledged write to the key that counts as written at a known stamp of at most
  // `stamp`; nullptr: none.
  const Write* newest_at(std::string_view key, uint64_t stamp) const;
  bool wrote(std::string_view key) const { return by_key_.find(key) != by_key_.end(); }
  size_t acknowledged_writes() const { return acknowledged_; }

 private:
  struct Loss {
    int64_t from_ns;
    int64_t until_ns;
  };

  static void give_version(Write& write, const Version& version);
  std::string value_of(size_t number) const;
  // Whether every read of that time, behind the write, has it or a newer one.
  bool is_certain(const Write& write, int64_t begin_ns, int64_t end_ns) const;

  const bool gets_settle_;
  std::vector<Loss> losses_;
  std::vector<Write> writes_;
  std::map<std::string, std::vector<size_t>, std::less<>> by_key_;
  std::map<const Process*, size_t> erasures_;  // the last that each began
  size_t acknowledged_ = 0;
};

}  // namespace sluice::simulation

#endif  // SLUICE_TESTS_SIMULATION_WORLD_HISTORY_H_
