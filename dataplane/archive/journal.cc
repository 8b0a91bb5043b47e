#include "dataplane/archive/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/defect.h"
#include "base/random.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/frame.h"

namespace sluice {
namespace {

constexpr uint8_t kDurable = 1;
constexpr uint8_t kDropped = 2;
constexpr size_t kMaxHeaderBytes = 64 << 10;
constexpr size_t kMaxJournalBytes = size_t{4} << 30;

std::string encode_header(const ArchiveIdentity& identity, const std::string& node) {
  std::string body;
  ByteWriter out(&body);
  out.put_string(identity.cluster);
  out.put_string(identity.backup);
  out.put_string(identity.name);
  out.put(identity.slot_bits);
  out.put(identity.cut);
  out.put(identity.table_epoch);
  out.put_string(node);
  const std::string header = frame(kJournalFrame, body);
  std::string bytes;
  ByteWriter file(&bytes);
  file.put(static_cast<uint32_t>(header.size()));
  file.put_bytes(header);
  return bytes;
}

absl::Status decode_header(ByteReader& in, JournalContent* content) {
  uint32_t size = 0;
  std::string_view framed;
  if (!in.get(&size) || size > kMaxHeaderBytes || !in.get_bytes(size, &framed)) {
    return data_loss("journal: no whole header");
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string_view body, unframe(kJournalFrame, framed));
  ByteReader fields(body);
  std::string_view cluster, backup, name, node;
  ArchiveIdentity& identity = content->identity;
  if (!fields.get_string(&cluster, kMaxHeaderBytes) ||
      !fields.get_string(&backup, kMaxHeaderBytes) || !fields.get_string(&name, kMaxHeaderBytes) ||
      !fields.get(&identity.slot_bits) || !fields.get(&identity.cut) ||
      !fields.get(&identity.table_epoch) || !fields.get_string(&node, kMaxHeaderBytes) ||
      !fields.done()) {
    return data_loss("journal: malformed header");
  }
  identity.cluster = cluster;
  identity.backup = backup;
  identity.name = name;
  content->node = node;
  return absl::OkStatus();
}

bool decode_slot(ByteReader& in, DurableSlot* slot) {
  uint64_t blocks = 0;
  if (!in.get(&slot->slot) || !SlotDigest::decode(in, &slot->digest) ||
      !in.get(&slot->newest_stamp) || !in.get_varint(&blocks)) {
    return false;
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    BlockLocation block;
    if (!in.get(&block.segment) || !decode_location(in, &block)) return false;
    slot->blocks.push_back(block);
  }
  return true;
}

bool replay(std::string_view payload, std::map<uint32_t, DurableSlot>* slots) {
  ByteReader in(payload);
  uint8_t kind = 0;
  uint64_t count = 0;
  if (!in.get(&kind) || !in.get_varint(&count)) return false;
  for (uint64_t i = 0; i < count; ++i) {
    if (kind == kDurable) {
      DurableSlot slot;
      if (!decode_slot(in, &slot)) return false;
      (*slots)[slot.slot] = std::move(slot);
    } else if (kind == kDropped) {
      uint32_t slot = 0;
      if (!in.get(&slot)) return false;
      slots->erase(slot);
    } else {
      return false;
    }
  }
  return in.done();
}

// Made by at most one: two nodes with one archive directory would otherwise each have a journal of
// which the other does not know.
absl::Status create_journal(const std::string& path, std::string_view header) {
  const std::string aside = fmt::format("{}.{:x}.tmp", path, entropy());
  const std::string folder = parent_folder(path);
  std::vector<Unsynced> made(2);
  SLUICE_ASSIGN_OR_RETURN(made[0], create_file(aside, header));
  // The directory may have been made a moment ago: its name becomes durable with the file.
  SLUICE_ASSIGN_OR_RETURN(made[1], open_folder(parent_folder(folder)));
  absl::Status status = sync_together(made);
  if (status.ok() && link(aside.c_str(), path.c_str()) != 0) {
    status = errno_status(errno, fmt::format("create {}", path));
  }
  unlink(aside.c_str());
  // The other one was first, and may have taken the file aside for a leftover.
  if (!status.ok() && access(path.c_str(), F_OK) == 0) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(status);
  return sync_folder(folder);
}

uint64_t entry_checksum(std::string_view length_and_payload) { return xxh3_64(length_and_payload); }

}  // namespace

absl::StatusOr<JournalContent> JournalContent::decode(std::string_view bytes) {
  JournalContent content;
  ByteReader in(bytes);
  SLUICE_RETURN_IF_ERROR(decode_header(in, &content));
  for (;;) {
    content.whole_bytes = bytes.size() - in.remaining();
    uint64_t checksum = 0;
    uint32_t size = 0;
    std::string_view payload;
    if (!in.get(&checksum) || !in.get(&size) || !in.get_bytes(size, &payload)) break;
    if (entry_checksum(bytes.substr(content.whole_bytes + 8, sizeof(size) + size)) != checksum)
      break;
    if (!replay(payload, &content.slots)) {
      return data_loss("journal: the entry at {} is malformed though its checksum holds",
                       content.whole_bytes);
    }
  }
  return content;
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::open(const std::string& folder,
                                                       const ArchiveIdentity& identity,
                                                       const std::string& node,
                                                       WriteFunction write) {
  const std::string path = folder + "/" + kJournalFile;
  if (access(path.c_str(), F_OK) != 0) {
    SLUICE_RETURN_IF_ERROR(create_journal(path, encode_header(identity, node)));
  }
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) return errno_status(errno, fmt::format("open {}", path));
  SLUICE_ASSIGN_OR_RETURN(const UnfinishedPart owner, Journal::owner(folder));
  if (owner.identity.backup == identity.backup && owner.node != node) {
    return already_exists(
        "{} holds the unfinished part of node {} of this backup: give each node an archive "
        "directory of its own",
        folder, owner.node);
  }
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return failed_precondition("{} is in use by another writer", folder);
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kMaxJournalBytes));
  auto content = JournalContent::decode(bytes);
  if (!content.ok()) return with_context(content.status(), path);
  if (content->identity != identity || content->node != node) {
    return already_exists("{} holds the unfinished part of node {} of backup {} ({})", folder,
                          content->node, content->identity.name, content->identity.backup);
  }
  if (defect(Defect::kTornEntryStays)) content->whole_bytes = bytes.size();
  if (content->whole_bytes < bytes.size()) {
    if (ftruncate(file.get(), static_cast<off_t>(content->whole_bytes)) != 0 ||
        fdatasync(file.get()) != 0) {
      return errno_status(errno, fmt::format("cut torn entry off {}", path));
    }
  }
  return std::unique_ptr<Journal>(
      new Journal(path, std::move(file), *std::move(content), std::move(write)));
}

absl::StatusOr<UnfinishedPart> Journal::owner(const std::string& folder) {
  const std::string path = folder + "/" + kJournalFile;
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return errno_status(errno, fmt::format("open {}", path));
  std::string bytes(sizeof(uint32_t) + kMaxHeaderBytes, '\0');
  SLUICE_ASSIGN_OR_RETURN(
      const size_t got,
      read_at(file.get(), 0, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}, path));
  ByteReader in(std::string_view(bytes).substr(0, got));
  JournalContent content;
  SLUICE_RETURN_IF_ERROR(with_context(decode_header(in, &content), path));
  return UnfinishedPart{std::move(content.identity), std::move(content.node)};
}

Journal::Journal(std::string path, UniqueFd file, JournalContent content, WriteFunction write)
    : path_(std::move(path)),
      file_(std::move(file)),
      content_(std::move(content)),
      write_(std::move(write)),
      end_(content_.whole_bytes) {}

absl::Status Journal::append(const std::vector<DurableSlot>& slots) {
  std::string payload;
  ByteWriter out(&payload);
  out.put(kDurable);
  out.put_varint(slots.size());
  for (const DurableSlot& slot : slots) {
    out.put(slot.slot);
    slot.digest.encode(out);
    out.put(slot.newest_stamp);
    out.put_varint(slot.blocks.size());
    for (const BlockLocation& block : slot.blocks) {
      out.put(block.segment);
      encode_location(block, out);
    }
  }
  return append_entry(payload);
}

absl::Status Journal::append_dropped(const std::vector<uint32_t>& slots) {
  std::string payload;
  ByteWriter out(&payload);
  out.put(kDropped);
  out.put_varint(slots.size());
  for (uint32_t slot : slots) out.put(slot);
  return append_entry(payload);
}

absl::Status Journal::append_entry(std::string_view payload) {
  std::string covered;
  ByteWriter out(&covered);
  out.put(static_cast<uint32_t>(payload.size()));
  out.put_bytes(payload);
  std::string entry;
  ByteWriter whole(&entry);
  whole.put(entry_checksum(covered));
  whole.put_bytes(covered);
  const std::string what = fmt::format("write {}", path_);
  SLUICE_RETURN_IF_ERROR(write_fully(write_, file_.get(), entry, end_, what));
  if (fdatasync(file_.get()) != 0) return errno_status(errno, fmt::format("fdatasync {}", path_));
  end_ += entry.size();
  return absl::OkStatus();
}

}  // namespace sluice
