#include "tree/tree_export.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/status.h"
#include "base/text.h"
#include "tree/tree_entry.h"

namespace sluice {
namespace {

constexpr int kFetches = 8;                // of a file that is replaced while it is read
constexpr size_t kAnswers = size_t{1024};  // about what is in the way, remembered

// A generation of a file's chunks that is being put together. Only one that the file's record names
// is placed.
struct Assembly {
  std::string staged;  // its name with the writer
  std::map<uint32_t, Digest128> chunks;
  uint64_t records = 0;  // with the generation's own
  uint64_t bytes = 0;
};
struct AssemblyKey {
  AssemblyKey(std::string_view file_path, const TreeHeader& header)
      : path(file_path),
        generation(header.generation),
        size(header.size),
        chunk_bytes(header.chunk_bytes),
        chunks(header.chunks()) {}
  std::string path;
  uint64_t generation = 0;
  uint64_t size = 0;
  uint32_t chunk_bytes = 0;
  uint64_t chunks = 0;
  friend auto operator<=>(const AssemblyKey&, const AssemblyKey&) = default;
};

// A file of several chunks, with the key of its own record.
struct ChunkedFile {
  ChunkedFile() = default;
  ChunkedFile(std::string_view file_key, const TreeEntry& record, size_t value_bytes)
      : key(file_key), entry(record), bytes(file_key.size() + value_bytes) {
    entry.content = {};
  }
  std::string key;
  TreeEntry entry;
  uint64_t bytes = 0;  // of its own record
  const TreeHeader& header() const { return entry.header; }
};

struct PendingDirectory {
  std::string path;
  FileMetadata metadata;
};
// Another name of a file.
struct PendingName {
  std::string path;
  HardLinkTarget target;
  Digest128 digest;
  uint64_t file_number = 0;
};
// Where a file with other names was placed.
struct Placed {
  std::string path;
  bool file = false;
  Digest128 digest;
  uint64_t file_number = 0;
};

class TreeExporter {
 public:
  TreeExporter(const TreeExportOptions& options, RecordSource& source, StreamProgress& progress)
      : options_(options), source_(source), progress_(progress) {}

  absl::Status open();
  absl::Status accept(std::string_view key, std::string_view value);
  absl::StatusOr<TreeExportResult> finish();

 private:
  // Any entry but chunks and generations.
  absl::Status take_entry(std::string_view key, std::string_view path, const TreeEntry& entry,
                          size_t value_bytes);
  absl::Status take_file(std::string_view key, const std::string& path, const TreeEntry& entry,
                         size_t value_bytes);
  absl::Status take_other(std::string_view key, const std::string& path, const TreeEntry& entry);
  // Bytes are those of its key and value.
  absl::Status take_chunk(std::string_view path, const TreeEntry& entry, size_t bytes);
  void take_generation(std::string_view path, const TreeHeader& header, size_t bytes);
  void note_failure(std::string_view path, const absl::Status& status);
  absl::Status check_going_on(std::string_view path, const absl::Status& status);
  absl::Status accept_chunk(std::string_view below, const TreeEntry& entry, size_t bytes);
  absl::Status accept_generation(std::string_view below, const TreeHeader& header, size_t bytes);
  void note_placed(std::string_view key, const std::string& path, const TreeEntry& entry);
  absl::Status place_large(std::string_view path, ChunkedFile file);
  // Places large files that were not whole when the scan saw them, by asking for what is missing:
  // an import may have replaced them meanwhile.
  void finish_large_files();
  absl::Status finish_large_file(const std::string& path, ChunkedFile file);
  // OK with the number of the first chunk that is not there, or of all chunks.
  absl::StatusOr<uint64_t> fetch_chunks(const std::string& path, const ChunkedFile& file);
  void drop_assemblies();
  bool is_whole(std::string_view path, const TreeHeader& header) const;
  void finish_names();
  absl::Status finish_name(const PendingName& name);
  void finish_directories();
  InTheWay ask_about(const std::string& path);

  const TreeExportOptions& options_;
  RecordSource& source_;
  StreamProgress& progress_;
  std::unique_ptr<TreeWriter> writer_;
  std::map<AssemblyKey, Assembly> assemblies_;
  std::map<std::string, ChunkedFile> large_files_;    // by path; not placed yet
  std::unordered_map<std::string, uint64_t> placed_;  // generations of large files, by path
  std::unordered_map<std::string, Placed> linked_;    // files with other names, by key
  std::vector<PendingDirectory> directories_;
  std::vector<PendingName> names_;
  std::unordered_map<std::string, InTheWay> answers_;
  TreeExportResult result_;
};

absl::Status TreeExporter::open() {
  SLUICE_ASSIGN_OR_RETURN(
      writer_, TreeWriter::open(options_.target,
                                [this](const std::string& path) { return ask_about(path); }));
  return absl::OkStatus();
}

// What the records have where a directory is to be made and something else is: an entry that is not
// a directory is newer than those below it, which an import left that found a directory there.
InTheWay TreeExporter::ask_about(const std::string& path) {
  if (const auto known = answers_.find(path); known != answers_.end()) return known->second;
  InTheWay answer = InTheWay::kRefuse;
  const auto value = source_.get(options_.prefix + path);
  if (value.ok() && value->has_value()) {
    const auto entry = parse_tree_entry(**value);
    if (entry.ok() && entry->header.kind == TreeKind::kDirectory) {
      answer = InTheWay::kReplace;
    } else if (entry.ok()) {
      answer = InTheWay::kSuperseded;
    }
  }
  if (answers_.size() >= kAnswers) answers_.clear();
  return answers_[path] = answer;
}

void TreeExporter::note_placed(std::string_view key, const std::string& path,
                               const TreeEntry& entry) {
  if (entry.extras.changed) ++result_.changed;
  if (!entry.extras.linked) return;
  linked_[std::string(key)] = {path, entry.header.kind == TreeKind::kFile, entry.header.digest,
                               entry.extras.file_number};
}

absl::Status TreeExporter::take_file(std::string_view key, const std::string& path,
                                     const TreeEntry& entry, size_t value_bytes) {
  const TreeHeader& header = entry.header;
  if (header.chunks() > 1) {
    large_files_[path] = ChunkedFile(key, entry, value_bytes);
    return is_whole(path, header) ? place_large(path, large_files_[path]) : absl::OkStatus();
  }
  if (digest_of_chunks({digest_of_content(entry.extras.extents, entry.content)}) != header.digest)
    return data_loss("its content does not have the digest of its header");
  const std::string staged = writer_->stage_name();
  SLUICE_ASSIGN_OR_RETURN(UniqueFd fd, writer_->stage(staged));
  if (absl::Status written = TreeWriter::write(fd.get(), extents_of(entry), entry.content);
      !written.ok()) {
    writer_->discard(staged);
    return written;
  }
  SLUICE_RETURN_IF_ERROR(writer_->place(std::move(fd), staged, path, metadata_of(entry)));
  ++result_.files;
  note_placed(key, path, entry);
  return absl::OkStatus();
}

absl::Status TreeExporter::take_chunk(std::string_view path, const TreeEntry& entry, size_t bytes) {
  const TreeHeader& header = entry.header;
  const Digest128 digest = digest_of_content(entry.extras.extents, entry.content);
  if (digest != header.digest)
    return data_loss("chunk {} does not have the digest of its header", header.chunk);
  Assembly& assembly = assemblies_[AssemblyKey(path, header)];
  if (assembly.staged.empty()) assembly.staged = writer_->stage_name();
  {
    SLUICE_ASSIGN_OR_RETURN(const UniqueFd fd, writer_->stage(assembly.staged));
    SLUICE_RETURN_IF_ERROR(TreeWriter::write(fd.get(), extents_of(entry), entry.content));
  }
  assembly.chunks[header.chunk] = digest;
  ++assembly.records;
  assembly.bytes += bytes;
  const auto file = large_files_.find(std::string(path));
  if (file == large_files_.end() || !is_whole(path, file->second.header())) return absl::OkStatus();
  return place_large(path, file->second);
}

void TreeExporter::take_generation(std::string_view path, const TreeHeader& header, size_t bytes) {
  const AssemblyKey key(path, header);
  if (const auto placed = placed_.find(key.path); placed != placed_.end()) {
    if (placed->second == header.generation) {
      ++result_.records;
      result_.bytes += bytes;
    } else {
      ++result_.other_records;
    }
    return;
  }
  Assembly& assembly = assemblies_[key];
  ++assembly.records;
  assembly.bytes += bytes;
}

bool TreeExporter::is_whole(std::string_view path, const TreeHeader& header) const {
  const auto found = assemblies_.find(AssemblyKey(path, header));
  return found != assemblies_.end() && found->second.chunks.size() == header.chunks();
}

// By value: what it is taken from goes in here.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
absl::Status TreeExporter::place_large(std::string_view path, ChunkedFile file) {
  const auto assembly = assemblies_.extract(AssemblyKey(path, file.header()));
  large_files_.erase(std::string(path));
  placed_[std::string(path)] = file.header().generation;
  const Assembly& parts = assembly.mapped();
  std::vector<Digest128> digests;
  for (const auto& [number, digest] : parts.chunks) digests.push_back(digest);
  if (digest_of_chunks(digests) != file.header().digest) {
    writer_->discard(parts.staged);
    return data_loss("its chunks do not belong together: import it again");
  }
  SLUICE_RETURN_IF_ERROR(writer_->place(parts.staged, std::string(path), metadata_of(file.entry)));
  ++result_.files;
  result_.records += parts.records + 1;
  result_.bytes += parts.bytes + file.bytes;
  note_placed(file.key, std::string(path), file.entry);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> TreeExporter::fetch_chunks(const std::string& path,
                                                    const ChunkedFile& file) {
  const TreeHeader& header = file.header();
  for (uint64_t number = 0; number < header.chunks(); ++number) {
    if (progress_.cancelled) return cancelled("cancelled");
    const Assembly& assembly = assemblies_[AssemblyKey(path, header)];
    const auto chunk = static_cast<uint32_t>(number);
    if (assembly.chunks.contains(chunk)) continue;
    const std::string key = tree_chunk_key(file.key, header.generation, chunk);
    SLUICE_ASSIGN_OR_RETURN(const auto value, source_.get(key));
    if (!value.has_value()) return number;
    const auto parsed = parse_tree_entry(*value);
    if (absl::IsNotFound(parsed.status())) return number;
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parsed);
    if (!is_chunk_of(entry.header, header, chunk))
      return data_loss("chunk {} is another one's", number);
    // The last one places the file.
    SLUICE_RETURN_IF_ERROR(take_chunk(path, entry, key.size() + value->size()));
  }
  return header.chunks();
}

absl::Status TreeExporter::finish_large_file(const std::string& path, ChunkedFile file) {
  for (int attempt = 0; attempt < kFetches; ++attempt) {
    SLUICE_ASSIGN_OR_RETURN(const uint64_t missing, fetch_chunks(path, file));
    if (missing == file.header().chunks()) return absl::OkStatus();
    SLUICE_ASSIGN_OR_RETURN(const auto value, source_.get(file.key));
    large_files_.erase(path);
    if (!value.has_value()) return absl::OkStatus();  // it was deleted meanwhile
    SLUICE_ASSIGN_OR_RETURN(const TreeEntry entry, parse_tree_entry(*value));
    if (entry.header.generation == file.header().generation) {
      return data_loss("chunk {} of its {} chunks is missing", missing, file.header().chunks());
    }
    SLUICE_RETURN_IF_ERROR(take_entry(file.key, path, entry, value->size()));
    if (!large_files_.contains(path)) return absl::OkStatus();
    file = ChunkedFile(file.key, entry, value->size());
  }
  return unavailable("it was replaced {} times while it was read", kFetches);
}

void TreeExporter::finish_large_files() {
  while (!large_files_.empty() && !progress_.cancelled) {
    const auto [path, file] = *large_files_.begin();
    const absl::Status status = finish_large_file(path, file);
    large_files_.erase(path);
    if (!status.ok()) note_failure(path, status);
  }
}

void TreeExporter::drop_assemblies() {
  for (const auto& [key, assembly] : assemblies_) {
    result_.other_records += assembly.records;
    if (!assembly.staged.empty()) writer_->discard(assembly.staged);
  }
  assemblies_.clear();
}

absl::Status TreeExporter::take_other(std::string_view key, const std::string& path,
                                      const TreeEntry& entry) {
  const absl::Status made = writer_->make(path, metadata_of(entry));
  if (absl::IsUnimplemented(made)) return absl::OkStatus();  // counted as not set
  SLUICE_RETURN_IF_ERROR(made);
  ++(entry.header.kind == TreeKind::kLink ? result_.links : result_.specials);
  note_placed(key, path, entry);
  return absl::OkStatus();
}

absl::Status TreeExporter::take_entry(std::string_view key, std::string_view path,
                                      const TreeEntry& entry, size_t value_bytes) {
  const TreeHeader& header = entry.header;
  // The root of a tree that was imported with a prefix like "docs/", when exported without it.
  if (header.kind == TreeKind::kDirectory && path.ends_with("/.")) path.remove_suffix(2);
  if (path != ".") SLUICE_RETURN_IF_ERROR(check_tree_path(path));
  if (path == "." && header.kind != TreeKind::kDirectory)
    return invalid_argument("a root that is not a directory");
  const std::string place(path);
  switch (header.kind) {
    case TreeKind::kDirectory:
      SLUICE_RETURN_IF_ERROR(writer_->make_directory(place));
      directories_.push_back({place, metadata_of(entry)});
      return absl::OkStatus();
    case TreeKind::kLink:
      if (xxh3_128(entry.content) != header.digest)
        return data_loss("its target does not have its digest");
      if (entry.content.find('\0') != std::string_view::npos)
        return data_loss("its target has a NUL byte");
      return take_other(key, place, entry);
    case TreeKind::kPipe:
    case TreeKind::kCharacterDevice:
    case TreeKind::kBlockDevice:
      return take_other(key, place, entry);
    case TreeKind::kHardLink: {
      SLUICE_ASSIGN_OR_RETURN(HardLinkTarget target, target_of(key, path, entry));
      names_.push_back({place, std::move(target), header.digest, entry.extras.file_number});
      return absl::OkStatus();
    }
    case TreeKind::kFile:
      return take_file(key, place, entry, value_bytes);
    case TreeKind::kChunk:
    case TreeKind::kGeneration:
      break;
  }
  return internal_error("an entry of a kind that parsing let through");
}

// Where there is room for nothing more, going on would say so once for each file.
absl::Status TreeExporter::check_going_on(std::string_view path, const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return with_context(status, printable(path));
  note_failure(path, status);
  return absl::OkStatus();
}

void TreeExporter::note_failure(std::string_view path, const absl::Status& status) {
  if (absl::IsAborted(status)) {
    ++result_.superseded;
    return;
  }
  (absl::IsDataLoss(status) ? result_.damaged : result_.failures)
      .add(std::string(path), std::string(message_of(status)));
}

absl::Status TreeExporter::accept(std::string_view key, std::string_view value) {
  if (progress_.cancelled) return cancelled("cancelled");
  if (!key.starts_with(options_.prefix)) return internal_error("a key without the prefix");
  const std::string_view below = key.substr(options_.prefix.size());
  const absl::StatusOr<TreeEntry> entry = parse_tree_entry(value);
  if (absl::IsNotFound(entry.status())) {
    ++result_.other_records;
    return absl::OkStatus();
  }
  progress_.count(key.size() + value.size());
  if (!entry.ok()) return check_going_on(below, entry.status());
  const TreeHeader& header = entry->header;
  const size_t bytes = key.size() + value.size();
  if (header.kind == TreeKind::kGeneration) return accept_generation(below, header, bytes);
  if (header.kind == TreeKind::kChunk) return accept_chunk(below, *entry, bytes);
  if (below.find('\0') != std::string_view::npos)
    return check_going_on(below, data_loss("its key is that of a chunk"));
  const absl::Status status = take_entry(key, below, *entry, value.size());
  if (!status.ok()) return check_going_on(below, status);
  if (header.generation == 0) {
    ++result_.records;
    result_.bytes += bytes;
  }
  return absl::OkStatus();
}

absl::Status TreeExporter::accept_chunk(std::string_view below, const TreeEntry& entry,
                                        size_t bytes) {
  std::string_view path;
  uint64_t generation = 0;
  uint32_t chunk = 0;
  if (!split_chunk_key(below, &path, &generation, &chunk) || chunk != entry.header.chunk ||
      generation != entry.header.generation) {
    return check_going_on(below,
                          data_loss("its key is not the one of chunk {}", entry.header.chunk));
  }
  absl::Status status = check_tree_path(path);
  if (status.ok()) status = take_chunk(path, entry, bytes);
  return status.ok() ? status : check_going_on(path, status);
}

// The prefix of the import may be longer than the export's: the key is prefix, NUL, the rest of the
// path, NUL, generation.
absl::Status TreeExporter::accept_generation(std::string_view below, const TreeHeader& header,
                                             size_t bytes) {
  const size_t nul = below.find('\0');
  std::string_view rest;
  uint64_t generation = 0;
  if (nul == std::string_view::npos ||
      !split_generation_key(below.substr(nul + 1), &rest, &generation) ||
      generation != header.generation) {
    return check_going_on(below, data_loss("its key is not the one of its generation"));
  }
  take_generation(std::string(below.substr(0, nul)).append(rest), header, bytes);
  return absl::OkStatus();
}

absl::Status TreeExporter::finish_name(const PendingName& name) {
  const auto found = linked_.find(name.target.key);
  if (found != linked_.end()) {
    // It may have another digest than when this entry was written: the file has several names
    // still, and an import was interrupted that found it changed. Another file that has taken the
    // name, and has others itself, is another matter.
    const uint64_t placed = found->second.file_number;
    if (placed != 0 && name.file_number != 0 && placed != name.file_number &&
        found->second.digest != name.digest) {
      return data_loss("its content, which '{}' had, is not there any more: import the tree again",
                       printable(name.target.key));
    }
    SLUICE_RETURN_IF_ERROR(writer_->link(found->second.path, name.path));
    if (found->second.file) ++result_.files;
    ++result_.hard_links;
    return absl::OkStatus();
  }
  // The name with the content is outside of what is exported: this one takes its place.
  SLUICE_ASSIGN_OR_RETURN(const auto value, source_.get(name.target.key));
  const auto entry = value.has_value() ? parse_tree_entry(*value) : not_found("");
  // Of a tree that was read where it is, a further name does not say what the content is.
  const bool same = entry.ok() && (entry->header.digest == name.digest ||
                                   (name.digest == Digest128() && name.file_number != 0 &&
                                    entry->extras.file_number == name.file_number));
  if (!same || entry->header.kind == TreeKind::kHardLink ||
      entry->header.kind == TreeKind::kDirectory) {
    return data_loss("its content, which '{}' had, is not there any more: import the tree again",
                     printable(name.target.key));
  }
  SLUICE_RETURN_IF_ERROR(take_entry(name.target.key, name.path, *entry, value->size()));
  const auto large = large_files_.find(name.path);
  if (large == large_files_.end()) return absl::OkStatus();
  const ChunkedFile file = large->second;
  return finish_large_file(name.path, file);
}

void TreeExporter::finish_names() {
  for (const PendingName& name : names_) {
    if (progress_.cancelled) return;
    if (writer_->is_replaced(name.path)) {
      ++result_.superseded;
      continue;
    }
    if (const absl::Status status = finish_name(name); !status.ok())
      note_failure(name.path, status);
  }
}

void TreeExporter::finish_directories() {
  std::sort(directories_.begin(), directories_.end(),
            [](const PendingDirectory& a, const PendingDirectory& b) {
              if ((a.path == ".") != (b.path == ".")) return b.path == ".";
              return a.path.size() != b.path.size() ? a.path.size() > b.path.size()
                                                    : a.path > b.path;
            });
  // While the directories above can still be entered.
  for (const PendingDirectory& directory : directories_) {
    if (writer_->is_replaced(directory.path)) {
      ++result_.superseded;
      continue;
    }
    const absl::Status status = writer_->finish_directory(directory.path, directory.metadata);
    if (status.ok()) {
      ++result_.directories;
    } else {
      note_failure(directory.path, status);
    }
  }
}

absl::StatusOr<TreeExportResult> TreeExporter::finish() {
  finish_large_files();
  finish_names();
  drop_assemblies();
  finish_directories();
  if (progress_.cancelled) return cancelled("cancelled");
  SLUICE_RETURN_IF_ERROR(writer_->finish());
  const Removed& removed = writer_->removed();
  result_.files -= std::min(result_.files, removed.files);
  result_.superseded += removed.files + removed.others;
  result_.not_set = writer_->not_set();
  return std::move(result_);
}

}  // namespace

absl::StatusOr<TreeExportResult> export_tree(const TreeExportOptions& options, RecordSource& source,
                                             StreamProgress& progress) {
  TreeExporter exporter(options, source, progress);
  SLUICE_RETURN_IF_ERROR(exporter.open());
  SLUICE_RETURN_IF_ERROR(source.scan(
      options.prefix,
      [&](std::string_view key, std::string_view value) { return exporter.accept(key, value); }));
  return exporter.finish();
}

}  // namespace sluice
