#include "control/backup/manifest_check.h"

#include <cstdint>
#include <map>

#include "base/defect.h"
#include "base/status.h"

namespace sluice {

absl::Status check_manifest(const Plan& plan, const Manifest& manifest) {
  std::map<uint32_t, const SlotDigest*> stored;
  for (const PartManifest& part : manifest.parts) {
    for (const SlotSummary& slot : part.slots) {
      if (!stored.emplace(slot.slot, &slot.digest).second) {
        return data_loss("slot {} is in the parts of two targets", slot.slot);
      }
    }
  }
  if (defect(Defect::kDeadTargetIsDone)) return absl::OkStatus();
  for (const SlotPlan& slot : plan.slots) {
    const auto found = stored.find(slot.slot);
    if (found == stored.end()) {
      if (plan.bytes_of(slot) == 0 || slot.told) continue;
      return data_loss("slot {} is in no target's part", slot.slot);
    }
    if (slot.agreed && !slot.told && *found->second != slot.expected) {
      return data_loss("slot {} at its target is not what its replicas published", slot.slot);
    }
    // One that the plan has as empty may have been merged while a copy with records was there.
    stored.erase(found);
  }
  if (!stored.empty()) {
    return data_loss("slot {} is in a part, but not in the plan", stored.begin()->first);
  }
  if (manifest.newest_stamp > manifest.identity.cut) {
    return data_loss("a record is stamped after the cut");
  }
  return absl::OkStatus();
}

}  // namespace sluice
