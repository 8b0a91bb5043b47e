#include "dataplane/pipeline/restore_context.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace sluice {

RestoreContext::RestoreContext(Exchange& of_exchange, ArchiveReader& of_archive,
                               SlotRouter& of_router, const RestoreOptions& of_options)
    : exchange(of_exchange),
      archive(of_archive),
      router(of_router),
      options(of_options),
      repack(archive.manifest().identity.slot_bits != router.slot_bits() ||
             options.mapping.repacks()),
      plan(archive, options, exchange.clock()),
      tally(archive, options, plan, repack) {}

absl::StatusOr<BlockBuffer> RestoreContext::take_buffer() {
  for (;;) {
    if (BlockBuffer buffer = pool->take(kCancellationPollMs)) return buffer;
    if (options.is_cancelled()) return cancelled("the restore is cancelled");
  }
}

absl::StatusOr<SlotRoute> RestoreContext::route(uint32_t slot) {
  SLUICE_ASSIGN_OR_RETURN(SlotRoute route, router.route(slot));
  if (route.replicas.empty()) return not_found("slot {} has no replicas", slot);
  return route;
}

absl::StatusOr<SlotRoute> RestoreContext::local_route(uint32_t slot) {
  SLUICE_ASSIGN_OR_RETURN(SlotRoute found, route(slot));
  const std::string here = exchange.address();
  const auto local = std::find_if(found.replicas.begin(), found.replicas.end(),
                                  [&](const auto& replica) { return replica.address == here; });
  if (!here.empty() && local != found.replicas.end()) {
    std::swap(*local, found.replicas.front());
  }
  return found;
}

UnitFailure RestoreContext::read_failure(uint32_t part, const absl::Status& status) const {
  return {fmt::format("archive of {}", archive.parts()[part].node), status,
          absl::IsDataLoss(status) || absl::IsFailedPrecondition(status), /*unread=*/true};
}

}  // namespace sluice
