#include "control/cluster_block/stored_document.h"

#include "base/bytes.h"
#include "base/status.h"
#include "base/text.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

constexpr size_t kDigestBytes = 16;

uint64_t checksum_of(std::string_view format, std::string_view body) {
  StreamingXxh3 hash;
  hash.update(format);
  hash.update(body);
  return hash.digest64();
}

}  // namespace

std::string encode_document(std::string_view format, const google::protobuf::MessageLite& body) {
  v1::StoredDocument document;
  document.set_format(format.data(), format.size());
  body.SerializeToString(document.mutable_body());
  document.set_checksum(checksum_of(format, document.body()));
  return document.SerializeAsString();
}

absl::Status decode_document(std::string_view key, std::string_view bytes, std::string_view format,
                             google::protobuf::MessageLite* body) {
  v1::StoredDocument document;
  if (!document.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return damaged_document(key, "it cannot be parsed");
  }
  if (document.checksum() != checksum_of(document.format(), document.body())) {
    return damaged_document(key, "the checksum does not match");
  }
  if (document.format() != format) {
    return data_loss("document at key '{}' has format '{}', this build reads '{}'", printable(key),
                     printable(document.format()), format);
  }
  if (!body->ParseFromString(document.body())) {
    return damaged_document(key, fmt::format("its content is not a '{}'", format));
  }
  return absl::OkStatus();
}

absl::Status damaged_document(std::string_view key, std::string_view what) {
  return data_loss("document at key '{}' is damaged: {}", printable(key), what);
}

std::string digest_bytes(const Digest128& digest) {
  std::string bytes;
  ByteWriter out(&bytes);
  out.put<uint64_t>(digest.low);
  out.put<uint64_t>(digest.high);
  return bytes;
}

bool read_digest(std::string_view bytes, Digest128* digest) {
  ByteReader in(bytes);
  return bytes.size() == kDigestBytes && in.get(&digest->low) && in.get(&digest->high);
}

}  // namespace sluice
