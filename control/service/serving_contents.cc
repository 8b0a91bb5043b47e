// The part of ServingService that lets clients look into archive parts of this node.
//
// A client may ask for everything that a part holds, and take as long as it likes: pages are
// bounded, calls are bounded (Admission::Kind::kContents), and a reader that takes nothing is cut
// off (PageSink). It goes on from the place that its last page names.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/status.h"
#include "control/backup/local_archives.h"
#include "control/contents/backup_contents.h"
#include "control/contents/entry.h"
#include "control/contents/listing.h"
#include "control/contents/tree_records.h"
#include "control/peers/rpc.h"
#include "control/restore/restore_runner.h"
#include "control/service/request_limits.h"
#include "control/service/serving_service.h"
#include "dataplane/archive/reader.h"
#include "dataplane/archive/record_reader.h"
#include "dataplane/block/record.h"

namespace sluice {

namespace {

constexpr size_t kEntriesOfPage = 1000;
constexpr size_t kPageBytes = size_t{256} << 10;
constexpr size_t kSlotsOfPage = 4096;
constexpr size_t kRecordsPageBytes = size_t{1} << 20;  // and a record more
// A client hears so often from a listing that finds nothing.
constexpr int64_t kContentsSilenceNs = 500 * kMs;

// A part of this node that is not removed while it is open.
struct OpenPart {
  std::unique_ptr<LocalArchives::Reading> reading;
  std::unique_ptr<ArchiveReader> archive;
  std::unique_ptr<RecordReader> records;
};

absl::StatusOr<OpenPart> open_part(const NodeContext& context,
                                   const v1::ArchiveReference& reference, uint32_t tree) {
  if (tree > kMaxTreeNumber) return invalid_argument("there is no tree {}", tree);
  OpenPart part;
  SLUICE_ASSIGN_OR_RETURN(part.reading, context.archives->read(reference, "a listing"));
  SLUICE_ASSIGN_OR_RETURN(
      part.archive, ArchiveReader::open({part.reading->directory()}, &part.reading->id(), tree));
  SLUICE_ASSIGN_OR_RETURN(part.records, RecordReader::open(*part.archive));
  return part;
}

// Gathers entries into pages.
class ContentsPages {
 public:
  ContentsPages(const Clock& clock, PageSink<v1::ContentsPage>& pages)
      : clock_(clock), pages_(pages), sent_ns_(clock.monotonic_ns()) {}

  absl::Status add(const BackupEntry& entry, const ListingPlace& place) {
    put(entry, page_.add_entries());
    bytes_ += entry.path.size() + entry.target.size() + entry.value.size();
    place_ = place;
    const bool full =
        static_cast<size_t>(page_.entries_size()) >= kEntriesOfPage || bytes_ >= kPageBytes;
    return full ? send() : absl::OkStatus();
  }
  void add_damage(const absl::Status& damage) {
    page_.add_damage(std::string(message_of(damage)));
    bytes_ += message_of(damage).size();
  }
  absl::Status pass(const ListingPlace& place) {
    place_ = place;
    return clock_.monotonic_ns() - sent_ns_ >= kContentsSilenceNs ? send() : absl::OkStatus();
  }
  absl::Status finish() {
    page_.set_last(true);
    return send();
  }

 private:
  absl::Status send() {
    page_.set_slot(place_.slot);
    page_.set_after(place_.after);
    const absl::Status status = pages_.write(page_);
    page_.Clear();
    bytes_ = 0;
    sent_ns_ = clock_.monotonic_ns();
    return status;
  }

  const Clock& clock_;
  PageSink<v1::ContentsPage>& pages_;
  v1::ContentsPage page_;
  ListingPlace place_;
  size_t bytes_ = 0;
  int64_t sent_ns_;
};

}  // namespace

absl::Status ServingService::list_slots(IncomingCall&, const v1::ListSlotsRequest& request,
                                        PageSink<v1::PartSlots>* pages) {
  SLUICE_ASSIGN_OR_RETURN(const OpenPart of_this,
                          open_part(context_, request.archive(), request.tree()));
  const Manifest& manifest = of_this.archive->manifest();
  for (const PartManifest& part : manifest.parts) {
    for (size_t first = 0; first < part.slots.size(); first += kSlotsOfPage) {
      v1::PartSlots page;
      page.set_node(part.node);
      page.set_slot_bits(manifest.identity.slot_bits);
      std::vector<SlotDigest> digests;
      for (size_t i = first; i < std::min(first + kSlotsOfPage, part.slots.size()); ++i) {
        page.add_slots(part.slots[i].slot);
        digests.push_back(part.slots[i].digest);
      }
      page.set_digests(encode_digests(digests));
      SLUICE_RETURN_IF_ERROR(pages->write(page));
    }
  }
  v1::PartSlots last;
  last.set_slot_bits(manifest.identity.slot_bits);
  last.set_last(true);
  return pages->write(last);
}

absl::Status ServingService::list_contents(IncomingCall& call,
                                           const v1::ListContentsRequest& request,
                                           PageSink<v1::ContentsPage>* pages) {
  SLUICE_RETURN_IF_ERROR(check_key_length("a path", request.path().size()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a prefix", request.prefix().size()));
  SLUICE_RETURN_IF_ERROR(check_key_length("a key", request.after().size()));
  SLUICE_ASSIGN_OR_RETURN(const OpenPart part,
                          open_part(context_, request.archive(), request.tree()));
  ContentsListing listing;
  listing.path = request.path();
  listing.children = request.children();
  listing.prefix = request.prefix();
  listing.digests = request.digests();
  listing.linked = request.linked();
  listing.heads = request.heads();
  listing.content_bytes = request.content_bytes();
  listing.slots = slots_of_bitmap(request.slots());
  ContentsPages out(*context_.clock, *pages);
  if (request.skip_damage()) {
    listing.skip_damage = [&out](const absl::Status& damage) { out.add_damage(damage); };
  }
  ListingVisitor visitor;
  visitor.entry = [&](const BackupEntry& entry, const ListingPlace& place) {
    return out.add(entry, place);
  };
  visitor.block = [&](const ListingPlace& place) -> absl::Status {
    if (stopping_) return unavailable("the node stops");
    if (call.cancelled()) return cancelled("the client went away");
    return out.pass(place);
  };
  SLUICE_RETURN_IF_ERROR(list_archive(*part.archive, *part.records, listing,
                                      {request.first_slot(), request.after()}, visitor));
  return out.finish();
}

absl::Status ServingService::read_contents(IncomingCall& call,
                                           const v1::ReadContentsRequest& request,
                                           PageSink<v1::ContentsPiece>* pages) {
  SLUICE_RETURN_IF_ERROR(check_count("keys", request.keys_size()));
  SLUICE_ASSIGN_OR_RETURN(const OpenPart part,
                          open_part(context_, request.archive(), request.tree()));
  for (int i = 0; i < request.keys_size(); ++i) {
    SLUICE_RETURN_IF_ERROR(check_key_length("a key", request.keys(i).size()));
    if (stopping_) return unavailable("the node stops");
    if (call.cancelled()) return cancelled("the client went away");
    // Each piece waits for the next one, as the last says what the whole is.
    v1::ContentsPiece piece;
    bool held = false;
    SLUICE_ASSIGN_OR_RETURN(const auto record,
                            read_entry(*part.archive, *part.records, request.keys(i),
                                       [&](const BlockEntry& entry) -> absl::Status {
                                         if (entry.tombstone) return absl::OkStatus();
                                         if (held) SLUICE_RETURN_IF_ERROR(pages->write(piece));
                                         held = true;
                                         piece.set_key(static_cast<uint32_t>(i));
                                         piece.set_piece(entry.fragment.data(),
                                                         entry.fragment.size());
                                         return absl::OkStatus();
                                       }));
    if (!held) continue;
    put(record->value_digest, piece.mutable_digest());
    SLUICE_RETURN_IF_ERROR(pages->write(piece));
  }
  v1::ContentsPiece last;
  last.set_last(true);
  return pages->write(last);
}

absl::Status ServingService::read_records(IncomingCall& call, const v1::ReadRecordsRequest& request,
                                          PageSink<v1::RecordsPage>* pages) {
  SLUICE_RETURN_IF_ERROR(check_key_length("a key", request.after().size()));
  if (request.tree() == 0) return invalid_argument("the records of a tree are read so");
  SLUICE_ASSIGN_OR_RETURN(const OpenPart part,
                          open_part(context_, request.archive(), request.tree()));
  v1::RecordsPage page;
  size_t bytes = 0;
  ListingPlace at{request.first_slot(), request.after()};
  int64_t sent_ns = context_.clock->monotonic_ns();
  const auto send = [&]() -> absl::Status {
    page.set_slot(at.slot);
    page.set_after(at.after);
    SLUICE_RETURN_IF_ERROR(pages->write(page));
    page.Clear();
    bytes = 0;
    sent_ns = context_.clock->monotonic_ns();
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(scan_tree(
      *part.records, at,
      [&](const ListingPlace& place) -> absl::Status {
        if (stopping_) return unavailable("the node stops");
        if (call.cancelled()) return cancelled("the client went away");
        at = place;
        const bool silent = context_.clock->monotonic_ns() - sent_ns >= kContentsSilenceNs;
        return silent ? send() : absl::OkStatus();
      },
      [&](std::string_view key, std::string_view value, const ListingPlace& place) {
        auto* record = page.add_records();
        record->set_key(key.data(), key.size());
        record->set_value(value.data(), value.size());
        bytes += key.size() + value.size();
        at = place;
        return bytes >= kRecordsPageBytes ? send() : absl::OkStatus();
      }));
  page.set_last(true);
  return send();
}

}  // namespace sluice
