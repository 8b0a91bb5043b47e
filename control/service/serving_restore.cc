// The part of ServingService that sends archive parts into clusters.
#include <mutex>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/backup/local_archives.h"
#include "control/restore/restore_runner.h"
#include "control/service/request_limits.h"
#include "control/service/serving_service.h"

namespace sluice {

namespace {
constexpr int kKeysPerMessage = 1000;
constexpr int kMaxUnits = 1'000'000;
}  // namespace

absl::Status ServingService::restore_part(IncomingCall& call, const v1::RestorePartRequest& request,
                                          PageSink<v1::RestoreUpdate>* pages) {
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.prefix().size()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.renamed().size()));
  SLUICE_ASSIGN_OR_RETURN(const auto reading,
                          context_.archives->read(request.archive(), "a restore"));
  std::unique_ptr<ClusterBlock> block;
  std::unique_ptr<Directory> directory;
  std::unique_ptr<Peers> peers;
  if (!request.cluster_url().empty() && request.cluster_url() != context_.cluster_url) {
    SLUICE_ASSIGN_OR_RETURN(block, context_.open_block(request.cluster_url()));
    SLUICE_ASSIGN_OR_RETURN(directory, Directory::open(*block));
    peers = std::make_unique<Peers>(*directory, *context_.clock, context_.peers->dialer());
  }
  // Also while nothing makes progress: a check may wait for a replica for minutes.
  Cancellation cancellation([&] { return stopping_ || call.cancelled(); });
  RestoreRun run;
  run.peers = peers == nullptr ? context_.peers : peers.get();
  run.exchange = context_.exchange;
  run.folders = {reading->directory()};
  run.expected = reading->id();
  run.id = request.restore();
  run.attempt = request.attempt();
  run.list = request.list();
  run.mapping.prefix = request.prefix();
  run.mapping.renames = request.renames();
  run.mapping.renamed = request.renamed();
  run.mapping.restamp = {request.restamp().stamp(), request.restamp().node()};
  run.retry = request.retry();
  run.dry_run = request.dry_run();
  run.check = request.check();
  run.check_slots = slots_of_bitmap(request.check_slots());
  run.together = {request.together().begin(), request.together().end()};
  run.cancellation = &cancellation;
  run.progress = [&](uint64_t done, uint64_t total) {
    v1::RestoreUpdate update;
    update.set_bytes_done(done);
    update.set_bytes_total(total);
    if (!pages->write(update).ok()) cancellation.cancel();
  };
  SLUICE_ASSIGN_OR_RETURN(v1::RestorePartResult result, run_restore(run));
  result.set_maps(true);
  v1::RestoreUpdate last;
  *last.mutable_result() = std::move(result);
  return pages->write(last);
}

absl::Status ServingService::read_units(IncomingCall&, const v1::ReadUnitsRequest& request,
                                        PageSink<v1::UnitKeys>* pages) {
  SLUICE_ASSIGN_OR_RETURN(const auto reading,
                          context_.archives->read(request.archive(), "a list of failed records"));
  if (request.units_size() > kMaxUnits) {
    return invalid_argument("{} units: at most {}", request.units_size(), kMaxUnits);
  }
  std::vector<RestoreUnit> units;
  for (const auto& unit : request.units()) {
    RestoreUnit& each = units.emplace_back();
    each.part = unit.part();
    each.slot = unit.slot();
    each.first_sequence = unit.first_sequence();
    each.blocks = unit.blocks();
  }
  v1::UnitKeys page;
  const auto send = [&]() -> absl::Status {
    if (page.keys_size() > 0) SLUICE_RETURN_IF_ERROR(pages->write(page));
    page.clear_keys();
    page.clear_deletions();
    return absl::OkStatus();
  };
  UnitKeyVisitor visitor;
  visitor.key = [&](size_t unit, std::string_view key, bool deletion) -> absl::Status {
    if (page.unit() != unit || page.keys_size() >= kKeysPerMessage) SLUICE_RETURN_IF_ERROR(send());
    page.set_unit(static_cast<uint32_t>(unit));
    page.add_keys(key.data(), key.size());
    page.add_deletions(deletion);
    return absl::OkStatus();
  };
  visitor.problem = [&](size_t unit, const absl::Status& why) -> absl::Status {
    SLUICE_RETURN_IF_ERROR(send());
    v1::UnitKeys problem;
    problem.set_unit(static_cast<uint32_t>(unit));
    problem.set_problem(std::string(message_of(why)));
    return pages->write(problem);
  };
  SLUICE_RETURN_IF_ERROR(read_unit_keys(reading->directory(), reading->id(), units, visitor));
  return send();
}

}  // namespace sluice
