#include "control/membership/table_store.h"

#include <algorithm>

#include "base/status.h"
#include "control/cluster_block/stored_document.h"
#include "control/proto/documents.pb.h"

namespace sluice {
namespace {

constexpr char kHeadFormat[] = "sluice.table.2";
constexpr char kTablePrefix[] = "table/";
constexpr size_t kChunkBytes = size_t{500} << 10;
constexpr uint32_t kMaxChunks = 256;

// Padded, so that chunks are listed in order and an epoch's prefix is no other's.
std::string epoch_prefix(uint64_t epoch) { return fmt::format("{}{:020}/", kTablePrefix, epoch); }
std::string epoch_head_key(uint64_t epoch) { return epoch_prefix(epoch) + "head"; }
// Two nodes may compute the same epoch from different members: their chunks do not mix, and what
// counts is whose head is first.
std::string chunk_prefix(const TableHead& head) {
  return fmt::format("{}{}/", epoch_prefix(head.epoch), head.digest.to_hex());
}

std::string encode_head(const TableHead& head) {
  v1::TableHeadDocument document;
  document.set_epoch(head.epoch);
  document.set_chunks(head.chunks);
  document.set_digest(digest_bytes(head.digest));
  return encode_document(kHeadFormat, document);
}

absl::StatusOr<TableHead> decode_head(const ClusterEntry& entry) {
  v1::TableHeadDocument document;
  SLUICE_RETURN_IF_ERROR(decode_document(entry.key, entry.value, kHeadFormat, &document));
  TableHead head;
  head.epoch = document.epoch();
  head.chunks = document.chunks();
  head.revision = entry.revision;
  if (!read_digest(document.digest(), &head.digest) || head.epoch == 0 || head.chunks == 0 ||
      head.chunks > kMaxChunks) {
    return damaged_document(entry.key, "a field is out of range");
  }
  return head;
}

absl::StatusOr<DistributionTable> load_chunks(ClusterBlock& block, const TableHead& head) {
  const std::string prefix = chunk_prefix(head);
  SLUICE_ASSIGN_OR_RETURN(const ClusterListing listing, block.list(prefix));
  std::string document;
  for (const ClusterEntry& entry : listing.entries) document += entry.value;
  if (listing.entries.size() != head.chunks || head.digest != xxh3_128(document)) {
    return data_loss(
        "the documents under key '{}' are damaged: they are not the table that its head names",
        prefix);
  }
  auto table = DistributionTable::decode(document);
  if (!table.ok())
    return with_context(table.status(), fmt::format("documents under key '{}'", prefix));
  if (table->epoch() != head.epoch) {
    return data_loss("the documents under key '{}' are a table of epoch {}", prefix,
                     table->epoch());
  }
  return table;
}

// Leftovers cost space only: an error here is not the caller's.
void erase_old_epochs(ClusterBlock& block, uint64_t newest) {
  if (newest <= kKeptTableEpochs) return;
  const std::string first_kept = epoch_prefix(newest - kKeptTableEpochs + 1);
  const auto listing = block.list(kTablePrefix);
  if (!listing.ok()) return;
  for (const ClusterEntry& entry : listing->entries) {
    if (entry.key != kTableHeadKey && entry.key < first_kept) block.erase(entry.key).IgnoreError();
  }
}

}  // namespace

absl::StatusOr<TableHead> load_table_head(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(kTableHeadKey));
  if (!entry) return not_found("this cluster has no distribution table yet");
  return decode_head(*entry);
}

absl::StatusOr<DistributionTable> load_table(ClusterBlock& block) {
  SLUICE_ASSIGN_OR_RETURN(const TableHead head, load_table_head(block));
  return load_chunks(block, head);
}

absl::StatusOr<DistributionTable> load_table(ClusterBlock& block, uint64_t epoch) {
  SLUICE_ASSIGN_OR_RETURN(const auto entry, block.get(epoch_head_key(epoch)));
  if (!entry) return not_found("no distribution table of epoch {}", epoch);
  SLUICE_ASSIGN_OR_RETURN(const TableHead head, decode_head(*entry));
  if (head.epoch != epoch)
    return data_loss("document at key '{}' is damaged: it is of epoch {}", entry->key, head.epoch);
  return load_chunks(block, head);
}

absl::Status publish_table(ClusterBlock& block, const DistributionTable& table) {
  const std::string document = table.encode();
  TableHead head;
  head.epoch = table.epoch();
  head.digest = xxh3_128(document);
  head.chunks = static_cast<uint32_t>((document.size() + kChunkBytes - 1) / kChunkBytes);

  const auto current = load_table_head(block);
  if (!current.ok() && !absl::IsNotFound(current.status())) return current.status();
  const uint64_t newest = current.ok() ? current->epoch : 0;
  if (newest == head.epoch && current->digest == head.digest) return absl::OkStatus();
  if (newest + 1 != head.epoch) {
    return aborted(
        "the newest distribution table is of epoch {}; that of epoch {} cannot follow it", newest,
        head.epoch);
  }
  for (uint32_t i = 0; i < head.chunks; ++i) {
    const std::string key = fmt::format("{}{:05}", chunk_prefix(head), i);
    SLUICE_RETURN_IF_ERROR(block.put(key, document.substr(i * kChunkBytes, kChunkBytes)).status());
  }
  SLUICE_RETURN_IF_ERROR(
      block
          .commit({ClusterOp::put(kTableHeadKey, encode_head(head),
                                  current.ok() ? current->revision : 0),
                   ClusterOp::put(epoch_head_key(head.epoch), encode_head(head))})
          .status());
  erase_old_epochs(block, head.epoch);
  return absl::OkStatus();
}

std::vector<TableMember> table_members(const std::vector<Member>& members) {
  std::vector<TableMember> result;
  result.reserve(members.size());
  for (const Member& member : members) {
    result.push_back({member.info.name, member.info.number, member.info.weight, member.info.rack});
  }
  std::sort(result.begin(), result.end(),
            [](const TableMember& a, const TableMember& b) { return a.number < b.number; });
  return result;
}

}  // namespace sluice
