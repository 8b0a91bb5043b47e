#include "dataplane/stream/hello.h"

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {

std::string_view stream_kind_name(StreamKind kind) {
  switch (kind) {
    case StreamKind::kBackupAgreed:
      return "backup (agreed slots)";
    case StreamKind::kBackupMerge:
      return "backup (divergent slots)";
    case StreamKind::kWrite:
      return "write";
    case StreamKind::kForward:
      return "forward";
  }
  return "unknown";
}

std::string Hello::encode() const {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put<uint32_t>(kMagic);
  out.put<uint16_t>(protocol_min);
  out.put<uint16_t>(protocol_max);
  out.put<uint64_t>(features);
  out.put<uint8_t>(static_cast<uint8_t>(kind));
  out.put<uint64_t>(incarnation);
  out.put<uint64_t>(attempt);
  out.put_string(cluster);
  out.put_string(node);
  out.put_string(target);
  out.put_string(job);
  out.put_string(authentication);
  return bytes;
}

absl::StatusOr<Hello> Hello::decode(std::string_view payload) {
  ByteReader in(payload);
  Hello hello;
  uint32_t magic = 0;
  uint8_t kind = 0;
  if (!in.get(&magic) || magic != kMagic) return data_loss("first message is no hello");
  // A later protocol may go on differently after its range, so the range alone decides whether the
  // rest can be read.
  if (!in.get(&hello.protocol_min) || !in.get(&hello.protocol_max) ||
      hello.protocol_min > hello.protocol_max) {
    return data_loss("hello without a protocol range");
  }
  if (hello.protocol_min > kProtocol || hello.protocol_max < kProtocol) {
    return failed_precondition("protocol {} to {} there, {} here", hello.protocol_min,
                               hello.protocol_max, kProtocol);
  }
  std::string_view cluster, node, target, job, authentication;
  if (!in.get(&hello.features) || !in.get(&kind) || !in.get(&hello.incarnation) ||
      !in.get(&hello.attempt) || !in.get_string(&cluster, kMaxNameBytes) ||
      !in.get_string(&node, kMaxNameBytes) || !in.get_string(&target, kMaxNameBytes) ||
      !in.get_string(&job, kMaxNameBytes) ||
      !in.get_string(&authentication, kMaxAuthenticationBytes) || !in.done()) {
    return data_loss("damaged hello");
  }
  if ((hello.features & ~kKnownFeatures) != 0) {
    return failed_precondition("hello requires unknown features {:#x}",
                               hello.features & ~kKnownFeatures);
  }
  if (kind < static_cast<uint8_t>(StreamKind::kBackupAgreed) ||
      kind > static_cast<uint8_t>(StreamKind::kForward)) {
    return failed_precondition("hello for an unknown kind of stream ({})", kind);
  }
  hello.kind = static_cast<StreamKind>(kind);
  hello.cluster = cluster;
  hello.node = node;
  hello.target = target;
  hello.job = job;
  hello.authentication = authentication;
  return hello;
}

}  // namespace sluice
