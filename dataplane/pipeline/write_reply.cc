#include <algorithm>

#include "base/bytes.h"
#include "base/status.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/envelope.h"

namespace sluice {

std::string WriteReply::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put<uint64_t>(changed);
  out.put<uint64_t>(kept_newer);
  out.put<uint64_t>(kept_equal);
  const size_t count = std::min(failures.size(), kMaxFailures);
  out.put_varint(count);
  for (size_t i = 0; i < count; ++i) {
    out.put_string(failures[i].node);
    out.put_string(encode_status(failures[i].status));
  }
  const size_t holding = std::min(holders.size(), kMaxHolders);
  out.put_varint(holding);
  for (size_t i = 0; i < holding; ++i) {
    out.put_string(holders[i].node);
    out.put_string(holders[i].store);
    out.put<uint64_t>(holders[i].keeping);
  }
  size_t left = std::min(kept.size(), kMaxKept);
  out.put_varint(left);
  for (auto at = kept.begin(); left > 0; ++at, --left) {
    out.put<uint32_t>(at->first);
    out.put_varint(at->second.newer);
    out.put_varint(at->second.deleted);
    out.put_varint(at->second.replaced);
  }
  return bytes;
}

absl::StatusOr<WriteReply> WriteReply::decode(std::string_view payload) {
  ByteReader in(payload);
  WriteReply reply;
  uint64_t count = 0;
  if (!in.get(&reply.changed) || !in.get(&reply.kept_newer) || !in.get(&reply.kept_equal) ||
      !in.get_varint(&count) || count > kMaxFailures || reply.kept_equal > reply.kept_newer) {
    return data_loss("damaged reply");
  }
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view node, status;
    if (!in.get_string(&node, Hello::kMaxNameBytes) ||
        !in.get_string(&status, kMaxReasonBytes + 16)) {
      return data_loss("damaged reply");
    }
    absl::Status why = decode_status(status);
    if (why.ok()) why = data_loss("a failure without a reason");
    reply.failures.push_back({std::string(node), std::move(why)});
  }
  if (!in.get_varint(&count) || count > kMaxHolders) return data_loss("damaged reply");
  for (uint64_t i = 0; i < count; ++i) {
    std::string_view node, store;
    uint64_t keeping = 0;
    if (!in.get_string(&node, Hello::kMaxNameBytes) ||
        !in.get_string(&store, Hello::kMaxNameBytes) || !in.get(&keeping)) {
      return data_loss("damaged reply");
    }
    reply.holders.push_back({std::string(node), std::string(store), keeping});
  }
  if (!in.get_varint(&count) || count > kMaxKept) return data_loss("damaged reply");
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t slot = 0;
    KeptRecords records;
    if (!in.get(&slot) || !in.get_varint(&records.newer) || !in.get_varint(&records.deleted) ||
        !in.get_varint(&records.replaced) || records.deleted > records.newer) {
      return data_loss("damaged reply");
    }
    reply.kept[slot] = records;
  }
  if (!in.done()) return data_loss("damaged reply");
  return reply;
}

}  // namespace sluice
