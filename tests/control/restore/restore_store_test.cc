#include "control/restore/restore_store.h"

#include <gtest/gtest.h>

#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

RestoreHead some_head() {
  RestoreHead head;
  head.id = "id";
  head.backup = "backup";
  head.name = "nightly";
  head.attempt = 3;
  head.driven = true;
  head.progress = 3;
  return head;
}

TEST(RestoreStoreTest, HeadOfARestoreThatUndoes) {
  RestoreHead head = some_head();
  head.mapping = {"docs/", true, "copy/", {77, 3}};
  head.on_conflict = OnConflict::kArchive;
  head.delete_extra = true;
  head.kept_deleted = 1;
  head.restored_over = 2;
  head.deleted_extra = 3;
  head.extra_left = 4;
  head.extra_reason = "n3 is away";
  const auto read = decode_restore_head(restore_head_key("id"), encode(head));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(encode(*read), encode(head));
  EXPECT_EQ(read->mapping.restamp, (Version{77, 3}));
  EXPECT_EQ(read->mapping.target_prefix(), "copy/");
  EXPECT_EQ(read->on_conflict, OnConflict::kArchive);
}

TEST(RestoreStoreTest, HeadsOfEarlierBuildsAreRead) {
  v1::RestoreDocument document;
  document.set_id("id");
  document.set_prefix("docs/");
  document.set_state("failed");
  document.set_manifest_digest(std::string(16, 'd'));
  document.set_attempt(2);
  const auto read =
      decode_restore_head(restore_head_key("id"), encode_document("sluice.restore.2", document));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->mapping.prefix, "docs/");
  EXPECT_FALSE(read->mapping.renames);
  EXPECT_FALSE(read->mapping.restamps());
  EXPECT_EQ(read->on_conflict, OnConflict::kNewest);
  EXPECT_FALSE(read->delete_extra);
  const auto later =
      decode_restore_head(restore_head_key("id"), encode_document("sluice.restore.9", document));
  EXPECT_EQ(later.status().code(), absl::StatusCode::kDataLoss);
}

// Whoever drove it would delete everything.
TEST(RestoreStoreTest, DeletionsBelongToAMoment) {
  RestoreHead head = some_head();
  head.delete_extra = true;
  EXPECT_FALSE(decode_restore_head(restore_head_key("id"), encode(head)).ok());
  head.on_conflict = OnConflict::kArchive;
  EXPECT_FALSE(decode_restore_head(restore_head_key("id"), encode(head)).ok());
  head.mapping.restamp = {5, 1};
  EXPECT_TRUE(decode_restore_head(restore_head_key("id"), encode(head)).ok());
}

}  // namespace
}  // namespace sluice
