#include "control/backup/manifest_check.h"

#include <cstddef>
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
  size_t expected = 0;
  for (const SlotPlan& slot : plan.slots) {
    if (plan.bytes_of(slot) == 0) continue;
    ++expected;
    const auto found = stored.find(slot.slot);
    if (found == stored.end()) return data_loss("slot {} is in no target's part", slot.slot);
    if (slot.agreed && *found->second != slot.expected) {
      return data_loss("slot {} at its target is not what its replicas published", slot.slot);
    }
  }
  if (stored.size() != expected) {
    return data_loss("{} slots in the parts, {} planned", stored.size(), expected);
  }
  if (manifest.newest_stamp > manifest.identity.cut) {
    return data_loss("a record is stamped after the cut");
  }
  return absl::OkStatus();
}

}  // namespace sluice
