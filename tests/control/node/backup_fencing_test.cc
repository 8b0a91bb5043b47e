// What calls of an attempt that is over do to a backup: nothing.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "base/status.h"
#include "control/backup/backup_store.h"
#include "control/peers/directory.h"
#include "control/peers/peers.h"
#include "control/peers/rpc.h"
#include "tests/control/node/test_cluster.h"

namespace sluice {
namespace {

// Calls a node as a coordinator does.
class Caller {
 public:
  Caller(TestCluster& cluster, std::string backup, uint64_t attempt)
      : directory_(*Directory::open(cluster.block())),
        peers_(*directory_, system_clock()),
        backup_(std::move(backup)),
        attempt_(attempt) {}

  absl::Status arm(uint64_t cut, uint64_t epoch) {
    v1::ArmRequest request;
    request.set_cut(cut);
    request.set_epoch(epoch);
    v1::ArmReply reply;
    return call(&v1::Peer::StubInterface::ArmCut, request, &reply);
  }
  absl::Status digests(v1::CutDigestsReply* reply) {
    return call(&v1::Peer::StubInterface::CutDigests, v1::CutDigestsRequest(), reply);
  }
  absl::Status drop_cut() { return refer(&v1::Peer::StubInterface::DropCut, v1::Empty()); }
  absl::Status drop_backup() { return refer(&v1::Peer::StubInterface::DropBackup, v1::Empty()); }
  absl::Status durable_slots() {
    return refer(&v1::Peer::StubInterface::DurableSlots, v1::SlotList());
  }
  absl::Status fetch_part() { return refer(&v1::Peer::StubInterface::FetchPart, v1::PartReply()); }
  absl::Status commit(const std::string& manifest) {
    v1::CommitRequest request;
    request.set_manifest(manifest);
    v1::CommitReply reply;
    return call(&v1::Peer::StubInterface::CommitArchive, request, &reply);
  }

 private:
  template <typename Method, typename Request, typename Reply>
  absl::Status call(Method method, Request request, Reply* reply) {
    const auto peer = peers_.find("n1");
    if (!peer.ok()) return peer.status();
    request.set_backup(backup_);
    request.set_attempt(attempt_);
    grpc::ClientContext context;
    set_timeout(context, 20'000);
    return from_grpc(((*peer)->peer().*method)(&context, request, reply));
  }
  template <typename Method, typename Reply>
  absl::Status refer(Method method, Reply reply) {
    return call(method, v1::BackupReference(), &reply);
  }

  std::unique_ptr<Directory> directory_;
  Peers peers_;
  const std::string backup_;
  const uint64_t attempt_;
};

// A coordinator that wakes up after a stall of any length goes on at whatever step it was.
TEST(BackupFencing, AnEarlierAttemptHasNoEffect) {
  TestCluster cluster;
  const auto client = cluster.client();
  const auto import = client->import();
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(import->put(fmt::format("k{}", i), "v").ok());
  ASSERT_EQ(import->finish().failed, 0u);
  // n2 cannot store its part; n1's stays unfinished, as do the cuts.
  const std::string in_the_way = cluster.folder() + "/n2/archives/b";
  std::ofstream(in_the_way) << "not a directory";
  auto backup = client->backup_create({.name = "b", .targets = {}, .dry_run = false}, nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  ASSERT_EQ(name_of(backup->state), "failed");
  auto stored = load_backup(cluster.block(), "b");
  ASSERT_TRUE(stored.ok());
  const uint64_t first = stored->head.attempt;
  const std::string uuid = stored->head.uuid;

  // As whoever resumes it does before anything else.
  BackupHead head = stored->head;
  head.attempt = first + 5;
  ASSERT_TRUE(update_backup(cluster.block(), *stored, head).ok());
  Caller successor(cluster, uuid, first + 5);
  v1::CutDigestsReply before;
  const absl::Status there = successor.digests(&before);
  ASSERT_TRUE(there.ok()) << message_of(there);
  ASSERT_TRUE(before.taken());

  Caller stalled(cluster, uuid, first);
  v1::CutDigestsReply ignored;
  for (const auto& step : std::initializer_list<std::function<absl::Status()>>{
           [&] { return stalled.arm(head.cut + (uint64_t{1} << 40), head.epoch); },
           [&] { return stalled.digests(&ignored); }, [&] { return stalled.drop_cut(); },
           [&] { return stalled.drop_backup(); }, [&] { return stalled.durable_slots(); },
           [&] { return stalled.fetch_part(); }, [&] { return stalled.commit("x"); }}) {
    const absl::Status status = step();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status.ToString();
  }
  // Nor has one that claims to come later than the document knows.
  EXPECT_TRUE(absl::IsFailedPrecondition(Caller(cluster, uuid, first + 9).drop_backup()));
  v1::CutDigestsReply after;
  ASSERT_TRUE(successor.digests(&after).ok());
  EXPECT_TRUE(after.taken());
  EXPECT_EQ(after.cut(), before.cut());

  std::filesystem::remove(in_the_way);
  backup = client->backup_resume("b", nullptr);
  ASSERT_TRUE(backup.ok()) << message_of(backup.status());
  EXPECT_EQ(name_of(backup->state), "completed") << backup->reason;
  EXPECT_EQ(backup->cut, before.cut()) << "resumed from the cuts that were there";
  EXPECT_GT(load_backup(cluster.block(), "b")->head.attempt, first + 5);

  // Of a deleted backup the nodes forget the attempt, and still refuse who comes late.
  ASSERT_TRUE(client->backup_delete("b").ok());
  EXPECT_FALSE(stalled.arm(head.cut + (uint64_t{1} << 40), head.epoch).ok());
  EXPECT_FALSE(successor.arm(head.cut + (uint64_t{1} << 40), head.epoch).ok());
}

}  // namespace
}  // namespace sluice
