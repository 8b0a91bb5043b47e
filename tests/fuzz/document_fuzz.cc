// Feeds the decoders of the cluster block's documents anything. Most inputs end at the checksum; so
// the input is read once as it is, and once as the content of a whole document of each format.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "control/backup/documents.h"
#include "control/backup/plan_reader.h"
#include "control/cluster_block/stored_document.h"
#include "control/membership/documents.h"
#include "control/proto/documents.pb.h"

namespace {

using namespace sluice;

constexpr char kNode[] = "n1";
constexpr char kUuid[] = "00000000-0000-4000-8000-000000000000";

// What is taken can be stored again, and is the same then.
template <typename Info, typename Decode>
void round_trip(const std::string& key, std::string_view document, const Decode& decode) {
  const absl::StatusOr<Info> info = decode(key, document);
  if (!info.ok()) return;
  const absl::StatusOr<Info> again = decode(key, encode(*info));
  if (!again.ok() || !(*again == *info)) std::abort();
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
  if (!plan.ok()) return;
  for (const SlotPlan& slot : plan->slots) {
    if (slot.target >= plan->nodes.size() || slot.copies == 0) std::abort();
    for (const PlanCopy& sent : plan->senders_of(slot)) {
      if (sent.node >= plan->nodes.size()) std::abort();
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
  for (const char* format : {"sluice.backup.4", "sluice.progress.2", "sluice.cluster.2",
                             "sluice.node.3", "sluice.live.3", "sluice.store.2", kPlanFormat}) {
    // Any message keeps what it does not know: the body goes through as it is.
    v1::StoredDocument any;
    if (any.ParseFromString(body)) read_all(encode_document(format, any));
  }
  return 0;
}
