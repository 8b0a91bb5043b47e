// Feeds the decoders of the cluster block's documents anything. Most inputs end at the checksum; so
// the input is read once as it is, and once as the content of a whole document of each format.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "control/backup/documents.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/stored_document.h"
#include "control/membership/documents.h"
#include "control/proto/documents.pb.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace sluice;
using sluice::testing::require;
using sluice::testing::require_names;

constexpr char kNode[] = "n1";
constexpr char kUuid[] = "00000000-0000-4000-8000-000000000000";

// What is taken can be stored again, and is the same then.
template <typename Info, typename Decode>
void round_trip(const std::string& key, std::string_view document, const Decode& decode) {
  const absl::StatusOr<Info> info = decode(key, document);
  require_names(info.status(), key);
  if (!info.ok()) return;
  const absl::StatusOr<Info> again = decode(key, encode(*info));
  require(again.ok() && *again == *info);
}

// As the encoders write them, so that a new version of one is not passed by.
std::vector<std::string> formats_of_encoders() {
  std::vector<std::string> formats = {kPlanFormat};
  for (const std::string& document :
       {encode(BackupHead()), encode(NodeProgress()), encode(ClusterInfo()), encode(NodeInfo()),
        encode(LiveInfo()), encode(StoreInfo())}) {
    v1::StoredDocument stored;
    require(stored.ParseFromString(document));
    formats.push_back(stored.format());
  }
  return formats;
}

const std::vector<std::string>& formats() {
  static const std::vector<std::string> all = formats_of_encoders();
  return all;
}

void read_all(std::string_view document) {
  round_trip<BackupHead>(backup_head_key(kUuid), document, decode_backup_head);
  round_trip<NodeProgress>(backup_progress_key(kUuid, kNode), document, decode_node_progress);
  round_trip<ClusterInfo>(kClusterKey, document, decode_cluster_info);
  round_trip<NodeInfo>(node_key(kNode), document, decode_node_info);
  round_trip<LiveInfo>(live_key(kNode), document, decode_live_info);
  round_trip<StoreInfo>(store_key(kNode), document, decode_store_info);
  const std::string text(document);
  const auto plan = decode_plan(kUuid, 1, {backup_plan_key(kUuid, 1, 0)}, {text});
  require_names(plan.status(), kUuid);
  if (!plan.ok()) return;
  for (const SlotPlan& slot : plan->slots) {
    require(slot.target < plan->nodes.size() && slot.copies > 0);
    for (const PlanCopy& sent : plan->senders_of(slot)) {
      require(sent.node < plan->nodes.size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  read_all(input);
  // The body, as it stands in a document that somebody damaged.
  v1::StoredDocument stored;
  if (!stored.ParseFromArray(data, static_cast<int>(size))) return 0;
  const std::string body = stored.body();
  for (const std::string& format : formats()) {
    // Any message keeps what it does not know: the body goes through as it is.
    v1::StoredDocument any;
    if (any.ParseFromString(body)) read_all(encode_document(format, any));
  }
  return 0;
}
