// What a restore counts besides sending: which stores have each archive slot, and how many
// records stand in blocks that cannot be read. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_RESTORE_LEDGER_H_
#define SLUICE_DATAPLANE_PIPELINE_RESTORE_LEDGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/arena.h"
#include "dataplane/archive/reader.h"
#include "dataplane/pipeline/restore.h"

namespace sluice {

// Which stores made the units of each archive slot durable. A slot whose units met two stores of
// one node, or two tables, is known to be on neither as a whole. Confined to one thread.
class SlotLedger {
 public:
  // The stores of one unit, and the epoch that their slots were routed by.
  class Unit {
   public:
    void add(uint64_t epoch, const std::vector<WriteReply::Holder>& holders);

   private:
    friend class SlotLedger;
    uint64_t epoch_ = 0;
    bool mixed_ = false;
    std::map<std::string, std::string> stores_;  // by node
  };

  void add(uint32_t slot, const Unit& unit, const KeptRecords& kept);
  // Forgets the slot. nullopt where its units were mixed.
  std::optional<RestoredSlot> complete(uint32_t slot);

 private:
  struct Slot {
    bool begun = false;
    bool mixed = false;
    uint64_t epoch = 0;
    KeptRecords kept;
    std::vector<uint32_t> stores;  // indexes in stores_
  };
  uint32_t index_of(const std::string& node, const std::string& store);

  std::map<WriteReply::Holder, uint32_t> indexes_;
  std::vector<WriteReply::Holder> stores_;
  std::map<uint32_t, Slot> slots_;
};

// Sets the counts of units that could not be read. Exact while the other blocks of their slots can
// be: the manifest has each slot's totals. Otherwise, all that the index lists count as live.
absl::Status count_unread(ArchiveReader& archive, const std::vector<RestoreUnit*>& units,
                          BlockBuffer& buffer);

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_RESTORE_LEDGER_H_
