#include "control/proto/peer.pb.h"
#include "control/proto/sluice.pb.h"
#include "control/service/call_list.h"
#include "tests/fuzz/mutations.h"

namespace sluice::testing {
namespace {

constexpr char kUuid[] = "00000000-0000-4000-8000-000000000001";

enum PeerCall : uint8_t {
#define SLUICE_FUZZ_NAME(Method, handler, kind) kPeer##Method,
  SLUICE_PEER_CALLS(SLUICE_FUZZ_NAME, SLUICE_FUZZ_NAME)
#undef SLUICE_FUZZ_NAME
};
enum ServingCall : uint8_t {
#define SLUICE_FUZZ_NAME(Method, handler, kind) kServing##Method,
  SLUICE_SERVING_CALLS(SLUICE_FUZZ_NAME, SLUICE_FUZZ_NAME)
#undef SLUICE_FUZZ_NAME
};

// The first byte says which call it is of.
std::string to_peer(PeerCall call, const google::protobuf::MessageLite& request) {
  return std::string(1, static_cast<char>(call)).append(request.SerializeAsString());
}
std::string to_serving(ServingCall call, const google::protobuf::MessageLite& request) {
  return std::string(1, static_cast<char>(0x80 | call)).append(request.SerializeAsString());
}

void add_records(std::vector<std::string>* inputs) {
  v1::ApplyRequest apply;
  apply.set_epoch(1);
  for (const char* key : {"a", "b"}) {
    v1::Record* record = apply.add_records();
    record->set_key(key);
    record->set_value("value");
    record->set_stamp(77);
    record->set_node(1);
  }
  inputs->push_back(to_peer(kPeerApply, apply));
  v1::ReadRequest read;
  read.add_keys("a");
  read.add_keys("nothing");
  inputs->push_back(to_peer(kPeerRead, read));
  for (uint32_t slot = 0; slot < 4; ++slot) {
    v1::ScanRequest scan;
    scan.set_slot(slot);
    scan.set_prefix("a");
    scan.set_values(slot % 2 == 0);
    inputs->push_back(to_peer(kPeerScanSlot, scan));
    v1::FindMissingRequest missing;
    missing.set_slot(slot);
    missing.add_items()->set_key("a");
    missing.add_items()->set_key("b");
    inputs->push_back(to_peer(kPeerFindMissing, missing));
  }
  v1::WriteRequest write;
  write.mutable_version()->set_stamp(78);
  write.mutable_version()->set_node(1);
  write.add_items()->set_key("a");
  write.mutable_items(0)->set_value("value");
  write.add_items()->set_key("c");
  write.mutable_items(1)->set_tombstone(true);
  inputs->push_back(to_serving(kServingWrite, write));
  v1::GetRequest get;
  get.set_key("a");
  inputs->push_back(to_serving(kServingGet, get));
  v1::CountRequest count;
  count.set_slots(16);
  inputs->push_back(to_serving(kServingCount, count));
  v1::ExportRequest exported;
  exported.set_slots(16);
  exported.set_prefix("a");
  inputs->push_back(to_serving(kServingExport, exported));
}

void add_clocks(std::vector<std::string>* inputs) {
  v1::DigestsRequest digests;
  digests.set_slots(16);
  inputs->push_back(to_peer(kPeerDigests, digests));
  v1::RecallRequest recall;
  recall.set_node("n1");
  recall.set_token("token");
  inputs->push_back(to_peer(kPeerRecallStore, recall));
  v1::ObserveRequest observe;
  observe.set_stamp(uint64_t{1} << 50);
  inputs->push_back(to_peer(kPeerObserveStamp, observe));
  v1::StampRequest stamp;
  stamp.set_after(79);
  stamp.add_slots(1);
  stamp.add_slots(2);
  inputs->push_back(to_serving(kServingStamp, stamp));
  for (const PeerCall call : {kPeerStages, kPeerReadClock}) {
    inputs->push_back(to_peer(call, v1::Empty()));
  }
  inputs->push_back(to_serving(kServingStatus, v1::Empty()));
}

void add_jobs(std::vector<std::string>* inputs) {
  v1::ArmRequest arm;
  arm.set_backup(kUuid);
  arm.set_cut(uint64_t{1} << 60);
  arm.set_epoch(1);
  arm.set_attempt(1);
  inputs->push_back(to_peer(kPeerArmCut, arm));
  v1::CutDigestsRequest digests;
  digests.set_backup(kUuid);
  digests.set_attempt(1);
  digests.set_pass(true);
  inputs->push_back(to_peer(kPeerCutDigests, digests));
  v1::BackupReference reference;
  reference.set_backup(kUuid);
  reference.set_attempt(1);
  for (const PeerCall call :
       {kPeerDropCut, kPeerDropBackup, kPeerDurableSlots, kPeerFetchPart, kPeerFetchPlan}) {
    inputs->push_back(to_peer(call, reference));
  }
  v1::ProgressRequest progress;
  progress.set_backup(kUuid);
  progress.set_node("n1");
  progress.set_progress("document");
  inputs->push_back(to_peer(kPeerReportProgress, progress));
  v1::CommitRequest commit;
  commit.set_backup(kUuid);
  commit.set_manifest("manifest");
  inputs->push_back(to_peer(kPeerCommitArchive, commit));
}

void add_archives(std::vector<std::string>* inputs) {
  v1::ArchiveReference archive;
  archive.set_cluster(kUuid);
  archive.set_backup(kUuid);
  archive.set_node("n1");
  archive.set_name("nightly");
  archive.set_manifest_digest(std::string(16, 'd'));
  for (const PeerCall call : {kPeerVerifyArchive, kPeerCheckArchive, kPeerDeleteArchive}) {
    inputs->push_back(to_peer(call, archive));
  }
  v1::BackupRequest backup;
  backup.set_backup("nightly");
  for (const ServingCall call :
       {kServingCancelBackup, kServingVerifyBackup, kServingDeleteBackup}) {
    inputs->push_back(to_serving(call, backup));
  }
  v1::RestorePartRequest restore;
  *restore.mutable_archive() = archive;
  restore.set_restore(kUuid);
  restore.set_attempt(1);
  inputs->push_back(to_serving(kServingRestorePart, restore));
  restore.set_cluster_url("sqlite:/c.db");
  inputs->push_back(to_serving(kServingRestorePart, restore));
  v1::ReadUnitsRequest units;
  *units.mutable_archive() = archive;
  units.add_units()->set_slot(3);
  inputs->push_back(to_serving(kServingReadUnits, units));
  v1::ListSlotsRequest slots;
  *slots.mutable_archive() = archive;
  inputs->push_back(to_serving(kServingListSlots, slots));
  v1::ListContentsRequest contents;
  *contents.mutable_archive() = archive;
  contents.set_path("docs");
  contents.set_children(true);
  contents.set_heads(true);
  contents.set_content_bytes(1000);
  contents.set_skip_damage(true);
  contents.set_slots("\x0f");
  contents.set_first_slot(1);
  contents.set_after("docs/a");
  inputs->push_back(to_serving(kServingListContents, contents));
  v1::ReadContentsRequest read;
  *read.mutable_archive() = archive;
  read.add_keys("docs/a");
  inputs->push_back(to_serving(kServingReadContents, read));
}

TEST(Fuzz, ServicesSurviveMutatedRequests) {
  std::vector<std::string> inputs;
  add_records(&inputs);
  add_clocks(&inputs);
  add_jobs(&inputs);
  add_archives(&inputs);
  run_mutations(inputs, 5'000);
}

}  // namespace
}  // namespace sluice::testing
