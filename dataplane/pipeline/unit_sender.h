// Sends units of a restore one by one, each from the archive to its last reply: units that are
// repacked, and those that are sent again. Internal to dataplane/pipeline.
#ifndef SLUICE_DATAPLANE_PIPELINE_UNIT_SENDER_H_
#define SLUICE_DATAPLANE_PIPELINE_UNIT_SENDER_H_

#include <cstdint>
#include <optional>

#include "dataplane/pipeline/block_regrouper.h"
#include "dataplane/pipeline/restore_context.h"

namespace sluice {

// Confined to one thread; several work on one context.
class UnitSender {
 public:
  explicit UnitSender(RestoreContext& context)
      : context_(context), regrouper_(context.router.slot_bits(), context.options.mapping) {}

  // One try: sends the unit, waits for the replies and accounts for it.
  void send(const RestorePlan::Unit& unit);

 private:
  void try_unit(const RestorePlan::Unit& unit, UnitTry* result);
  void send_plain(BlockBuffer buffer, const BlockLocation& location, const RestorePlan::Unit& unit,
                  UnitTry* result);
  void send_regrouped(BlockBuffer buffer, bool completed, const RestorePlan::Unit& unit,
                      UnitTry* result);
  // Until every replica has the block.
  std::optional<UnitFailure> send_block(BlockBuffer& buffer, uint32_t bytes, uint32_t slot,
                                        int tries, const RecordCount& count, UnitTry* result);

  RestoreContext& context_;
  BlockRegrouper regrouper_;
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_UNIT_SENDER_H_
