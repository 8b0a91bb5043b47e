// The hello: the first message on any connection, over any transport. Every field is hostile until
// checked. docs/streams.md has its layout.
#ifndef SLUICE_DATAPLANE_STREAM_HELLO_H_
#define SLUICE_DATAPLANE_STREAM_HELLO_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice {

// What a stream is for. The numbers are on the wire.
enum class StreamKind : uint8_t {
  kBackupAgreed = 1,  // a source's agreed slots, to a target
  kBackupMerge = 2,   // a target's requests for records of divergent slots, to a source
  kWrite = 3,         // a client's data writing requests, to a coordinating replica
  kForward = 4,       // that replica's, to the slot's other replicas
};
std::string_view stream_kind_name(StreamKind kind);

struct Hello {
  static constexpr uint32_t kMagic = 0x4c48534c;  // "LSHL"
  static constexpr uint16_t kProtocol = 5;
  static constexpr uint64_t kKnownFeatures = 0;
  static constexpr size_t kMaxNameBytes = 255;
  static constexpr size_t kMaxAuthenticationBytes = 4096;

  uint16_t protocol_min = kProtocol;
  uint16_t protocol_max = kProtocol;
  uint64_t features = 0;  // that the sender requires; an unknown bit is refused
  std::string cluster;    // UUID
  std::string node;       // the connecting member's (or client's) name
  uint64_t incarnation = 0;
  std::string target;  // the member that it means to reach; empty: whoever listens there
  StreamKind kind = StreamKind::kWrite;
  std::string job;  // backup or restore id; empty for kForward
  uint64_t attempt = 0;
  std::string authentication;  // room for a token; empty today

  std::string encode() const;
  // DATA_LOSS for what is no hello.
  static absl::StatusOr<Hello> decode(std::string_view payload);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_STREAM_HELLO_H_
