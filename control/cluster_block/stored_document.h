// Documents of the cluster block: a protobuf message with its format's name and a checksum around
// it, so that a document of another kind or release, and one that is cut off or damaged, is told
// from one that is whole. Pure.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_STORED_DOCUMENT_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_STORED_DOCUMENT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/checksum.h"
#include "google/protobuf/message_lite.h"

namespace sluice {

std::string encode_document(std::string_view format, const google::protobuf::MessageLite& body);
// DATA_LOSS naming the key where `document` is anything but a whole one of this format.
absl::Status decode_document(std::string_view key, std::string_view document,
                             std::string_view format, google::protobuf::MessageLite* body);
// What decode_document() says of a document whose content breaks a rule.
absl::Status damaged_document(std::string_view key, std::string_view what);

// Fields of 16 bytes.
std::string digest_bytes(const Digest128& digest);
bool read_digest(std::string_view bytes, Digest128* digest);

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_STORED_DOCUMENT_H_
