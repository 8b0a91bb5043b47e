#include "control/contents/entry_spill.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/status.h"

namespace sluice {

namespace {

constexpr size_t kLengthBytes = 4;

std::string temporary_directory() {
  const char* named = std::getenv("TMPDIR");
  return named != nullptr && *named != '\0' ? named : "/tmp";
}

absl::StatusOr<BackupEntry> decode(std::string_view line, uint8_t* side) {
  ByteReader in(line);
  std::string_view node;
  std::string_view rest;
  v1::ContentsEntry message;
  if (!in.get(side) || !in.get_string(&node, line.size()) || !in.get_bytes(in.remaining(), &rest) ||
      !message.ParseFromArray(rest.data(), static_cast<int>(rest.size()))) {
    return internal_error("an entry came back from sorting with other bytes");
  }
  SLUICE_ASSIGN_OR_RETURN(BackupEntry entry, decode_entry(message));
  entry.node = node;
  return entry;
}

}  // namespace

EntrySpill::EntrySpill(size_t run_bytes) : spill_(temporary_directory(), run_bytes) {}

// The line: its length (u32), side, node, the entry as it travels.
absl::Status EntrySpill::add(uint8_t side, const BackupEntry& entry, std::string_view key) {
  v1::ContentsEntry message;
  put(entry, &message);
  std::string body;
  ByteWriter out(&body);
  out.put(side);
  out.put_string(entry.node);
  message.AppendToString(&body);
  std::string line;
  ByteWriter(&line).put(static_cast<uint32_t>(body.size()));
  line += body;
  return spill_.add(key, line);
}

absl::Status EntrySpill::drain(const Visit& visit) {
  std::string buffer;
  return spill_.drain([&](std::string_view piece) -> absl::Status {
    buffer.append(piece);
    size_t at = 0;
    while (buffer.size() - at >= kLengthBytes) {
      const auto length = load_le<uint32_t>(buffer.data() + at);
      if (buffer.size() - at - kLengthBytes < length) break;
      uint8_t side = 0;
      SLUICE_ASSIGN_OR_RETURN(
          BackupEntry entry,
          decode(std::string_view(buffer).substr(at + kLengthBytes, length), &side));
      at += kLengthBytes + length;
      SLUICE_RETURN_IF_ERROR(visit(side, std::move(entry)));
    }
    buffer.erase(0, at);
    return absl::OkStatus();
  });
}

}  // namespace sluice
