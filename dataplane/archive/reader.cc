#include "dataplane/archive/reader.h"

#include <fcntl.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/mutex.h"
#include "base/status.h"
#include "dataplane/archive/folder.h"
#include "dataplane/archive/frame.h"
#include "dataplane/archive/runs.h"
#include "dataplane/archive/segment_reader.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

// The segment read last, kept open: blocks are mostly read in their order on disk.
class SegmentCache {
 public:
  absl::StatusOr<std::shared_ptr<UniqueFd>> open(uint32_t number, const std::string& path) {
    const MutexLock lock(mutex_);
    if (file_ == nullptr || number_ != number) {
      absl::StatusOr<UniqueFd> file = open_direct(path, O_RDONLY);
      // The manifest names it: its loss is damage like any other.
      if (absl::IsNotFound(file.status())) return data_loss("the segment is missing");
      if (!file.ok()) return file.status();
      file_ = std::make_shared<UniqueFd>(*std::move(file));
      number_ = number;
    }
    return file_;
  }

 private:
  Mutex mutex_;
  uint32_t number_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<UniqueFd> file_ SLUICE_GUARDED_BY(mutex_);
};

class Reader final : public ArchiveReader {
 public:
  Reader(uint32_t tree, Manifest manifest, const Digest128& manifest_digest,
         std::vector<Part> parts)
      : tree_(tree),
        manifest_(std::move(manifest)),
        manifest_digest_(manifest_digest),
        parts_(std::move(parts)),
        segments_(std::make_unique<SegmentCache[]>(parts_.size())) {}

  uint32_t tree() const override { return tree_; }
  const Manifest& manifest() const override { return manifest_; }
  const Digest128& manifest_digest() const override { return manifest_digest_; }
  const std::vector<Part>& parts() const override { return parts_; }

  std::vector<std::string> missing_parts() const override {
    std::vector<std::string> missing;
    for (const PartManifest& part : manifest_.parts) {
      const auto here = [&part](const Part& each) { return each.node == part.node; };
      if (std::none_of(parts_.begin(), parts_.end(), here)) missing.push_back(part.node);
    }
    return missing;
  }

  absl::Status read_block(size_t part, const BlockLocation& location,
                          std::span<uint8_t> into) override {
    const std::string path = parts_.at(part).folder + "/" + segment_file(location.segment);
    if (into.size() < padded(location.bytes)) {
      return invalid_argument("archive: no room for a block of {} bytes", location.bytes);
    }
    SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<UniqueFd> file,
                            segments_[part].open(location.segment, path));
    absl::Status status = read_padded(file->get(), location, into, path);
    if (status.ok()) {
      status =
          check_block(location, manifest_.identity.slot_bits, into.first(padded(location.bytes)));
    }
    return with_context(status,
                        fmt::format("{} at {}, slot {}", path, location.offset, location.slot));
  }

 private:
  const uint32_t tree_;
  const Manifest manifest_;
  const Digest128 manifest_digest_;
  const std::vector<Part> parts_;
  const std::unique_ptr<SegmentCache[]> segments_;
};

absl::StatusOr<std::string> read_required(const std::string& path, size_t limit) {
  auto bytes = read_file(path, limit);
  if (bytes.status().code() == absl::StatusCode::kNotFound) return data_loss("{} is missing", path);
  return bytes;
}

absl::StatusOr<std::vector<BlockLocation>> load_index(const std::string& folder,
                                                      const Manifest& manifest,
                                                      const PartManifest& part,
                                                      const SegmentSummary& segment) {
  const std::string path = folder + "/" + index_file(segment.number);
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes, read_required(path, kMaxIndexBytes));
  if (bytes.size() != segment.index_bytes || xxh3_128(bytes) != segment.index_digest) {
    return data_loss("{} is not the index that the manifest names", path);
  }
  auto index = SegmentIndex::decode(bytes);
  if (!index.ok()) return with_context(index.status(), path);
  if (index->backup != manifest.identity.backup || index->node != part.node ||
      index->number != segment.number || index->segment_bytes != segment.bytes ||
      index->blocks.size() != segment.blocks) {
    return data_loss("{} does not agree with the manifest", path);
  }
  const std::string data = folder + "/" + segment_file(segment.number);
  const absl::StatusOr<uint64_t> size = file_bytes(data);
  if (absl::IsNotFound(size.status())) return data_loss("{} is missing", data);
  if (!size.ok()) return size.status();
  if (*size != segment.bytes) {
    return data_loss("{} has {} bytes instead of {}", data, *size, segment.bytes);
  }
  return std::move(index->blocks);
}

// Every slot with records has blocks, and every block is of such a slot.
absl::Status check_slots(const PartManifest& part, const std::vector<BlockLocation>& blocks) {
  std::set<uint32_t> listed;
  for (const BlockLocation& block : blocks) listed.insert(block.slot);
  const bool same =
      std::equal(listed.begin(), listed.end(), part.slots.begin(), part.slots.end(),
                 [](uint32_t slot, const SlotSummary& each) { return slot == each.slot; });
  if (!same) return data_loss("the indexes do not hold the slots that the manifest names");
  return absl::OkStatus();
}

absl::StatusOr<ArchiveReader::Part> load_part(const std::string& folder, const Manifest& manifest) {
  const std::string path = folder + "/" + kPartFile;
  SLUICE_ASSIGN_OR_RETURN(const std::string bytes, read_required(path, kMaxManifestBytes));
  const auto found = PartManifest::decode(bytes);
  if (!found.ok()) return with_context(found.status(), path);
  const auto part =
      std::find_if(manifest.parts.begin(), manifest.parts.end(),
                   [&found](const PartManifest& each) { return each.node == found->node; });
  if (part == manifest.parts.end() || part->encode() != bytes) {
    return data_loss("{} is not of the part that the manifest names for node {}", path,
                     found->node);
  }
  std::vector<BlockLocation> blocks;
  for (const SegmentSummary& segment : part->segments) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<BlockLocation> more,
                            load_index(folder, manifest, *part, segment));
    blocks.insert(blocks.end(), more.begin(), more.end());
  }
  if (absl::Status status = check_slots(*part, blocks); !status.ok())
    return with_context(status, folder);
  auto ordered = order_runs(std::move(blocks));
  if (!ordered.ok()) return with_context(ordered.status(), folder);
  return ArchiveReader::Part{part->node, folder, *std::move(ordered)};
}

void leave_tree(uint32_t tree, Manifest* manifest, std::vector<ArchiveReader::Part>* parts) {
  const auto is_other = [tree](const auto& each) { return tree_number_of(each.slot) != tree; };
  for (PartManifest& part : manifest->parts) std::erase_if(part.slots, is_other);
  for (ArchiveReader::Part& part : *parts) std::erase_if(part.blocks, is_other);
}

ArchivePartId id_of(const Manifest& manifest, std::string_view bytes) {
  return {manifest.identity.cluster, manifest.identity.backup, "", xxh3_128(bytes)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArchiveReader>> ArchiveReader::open(
    const std::vector<std::string>& folders, const ArchivePartId* expected, uint32_t tree) {
  if (folders.empty()) return invalid_argument("archive: no directory given");
  std::string root;
  std::optional<Manifest> manifest;
  std::vector<Part> parts;
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + kManifestFile;
    auto bytes = read_file(path, kMaxManifestBytes);
    if (!bytes.ok())
      return with_context(bytes.status(), fmt::format("{} holds no archive", folder));
    if (!manifest.has_value()) {
      auto decoded = Manifest::decode(*bytes);
      if (!decoded.ok()) return with_context(decoded.status(), path);
      manifest = *std::move(decoded);
      root = *std::move(bytes);
    } else if (*bytes != root) {
      return data_loss("{} differs from {}/{}: directories of different archives, or damage", path,
                       folders[0], kManifestFile);
    }
    // Before its parts are judged by a manifest that may be another archive's.
    FoundPart found{FoundPart::State::kFinished, id_of(*manifest, root), manifest->identity.name};
    if (expected != nullptr) SLUICE_RETURN_IF_ERROR(check_identity(folder, found, *expected));
    SLUICE_ASSIGN_OR_RETURN(Part part, load_part(folder, *manifest));
    found.id.node = part.node;
    if (expected != nullptr) SLUICE_RETURN_IF_ERROR(check_identity(folder, found, *expected));
    for (const Part& other : parts) {
      if (other.node == part.node) {
        return invalid_argument("{} and {} hold the same part", other.folder, folder);
      }
    }
    parts.push_back(std::move(part));
  }
  if (tree != 0) {
    const auto known = [tree](const auto& each) { return each.number == tree; };
    if (std::none_of(manifest->trees.begin(), manifest->trees.end(), known)) {
      return not_found("archive {} has no tree of number {}", manifest->identity.name, tree);
    }
  }
  leave_tree(tree, &*manifest, &parts);
  return std::unique_ptr<ArchiveReader>(
      std::make_unique<Reader>(tree, *std::move(manifest), xxh3_128(root), std::move(parts)));
}

}  // namespace sluice
