#include "tree/file_groups.h"

#include <algorithm>
#include <unordered_map>

#include "base/status.h"

namespace sluice {
namespace {

bool has_chunks(const FileGroup& group) {
  return std::any_of(group.files.begin(), group.files.end(),
                     [](const GroupFile& file) { return file.value.empty(); });
}

}  // namespace

void FileGroupWriter::write(FileGroup& group, int attempt) {
  if (has_chunks(group)) {
    if (const absl::Status begun = generations_.begin(); !begun.ok()) return job_.stop(begun);
    put_generations(group, generations_.of_attempt(attempt));
    put_chunks(group);
  }
  put_files(group);
}

void FileGroupWriter::take_step(FileGroup& group, RecordSink& sink) {
  SinkTotals totals = sink.finish();
  std::unordered_map<std::string, std::string> reasons;  // by the file's key
  for (StreamFailure& failure : totals.failures.first) {
    std::string_view key = failure.path;
    std::string_view path;
    uint64_t generation = 0;
    uint32_t chunk = 0;
    const std::string before = generation_prefix(prefix_);
    std::string file = failure.path;
    if (key.starts_with(before) &&
        split_generation_key(key.substr(before.size()), &path, &generation)) {
      file = key_of(std::string(path));
    } else if (split_chunk_key(key, &path, &generation, &chunk)) {
      file = std::string(path);
    }
    reasons.emplace(std::move(file), failure.reason);
  }
  // Beyond those that are kept nobody knows which it were.
  const bool all = totals.failures.count > totals.failures.first.size();
  for (GroupFile& file : group.files) {
    const auto reason = reasons.find(key_of(file.found.path));
    if (reason == reasons.end() && !all) continue;
    if (file.state != GroupFile::State::kFailed) {
      job_.fail(file.found.path,
                reason != reasons.end() ? reason->second : totals.failures.first[0].reason);
    }
    file.state = GroupFile::State::kFailed;
  }
  job_.note_written(totals.records, totals.bytes);
}

void FileGroupWriter::put_generations(FileGroup& group, uint64_t generation) {
  const auto sink = store_.writer();
  for (GroupFile& file : group.files) {
    if (!file.value.empty()) continue;
    file.entry.header.generation = generation;
    TreeHeader record = file.entry.header;
    record.kind = TreeKind::kGeneration;
    job_.put(*sink, generation_key(prefix_, file.found.path, generation),
             encode_tree_entry(record));
    generations_.note_record();
  }
  take_step(group, *sink);
}

absl::Status FileGroupWriter::put_content(const TreeFile& now, GroupFile& file, RecordSink& sink) {
  ChunkReader chunks(now, file.entry);
  std::string value;
  while (!chunks.done() && !job_.stopped()) {
    const uint32_t number = chunks.number();
    SLUICE_ASSIGN_OR_RETURN(const bool same, chunks.next(&value));
    if (!same) return aborted("changed");
    job_.put(sink, tree_chunk_key(key_of(file.found.path), file.entry.header.generation, number),
             value);
  }
  file.entry.header.digest = chunks.digest();
  return absl::OkStatus();
}

void FileGroupWriter::put_chunks_of(GroupFile& file, RecordSink& sink) {
  const auto put_all = [&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(const TreeFile now, TreeFile::open(root_, file.found.path, names_));
    if (now.identity() != file.identity || now.metadata().size != file.entry.header.size)
      return aborted("changed");
    return put_content(now, file, sink);
  };
  const absl::Status status = put_all();
  if (status.ok()) return;
  file.state = absl::IsAborted(status) ? GroupFile::State::kChanged : GroupFile::State::kFailed;
  if (file.state == GroupFile::State::kFailed)
    job_.fail(file.found.path, std::string(message_of(status)));
}

void FileGroupWriter::put_chunks(FileGroup& group) {
  const auto sink = store_.writer();
  for (GroupFile& file : group.files) {
    if (file.value.empty() && file.state == GroupFile::State::kGood) put_chunks_of(file, *sink);
  }
  take_step(group, *sink);
}

void FileGroupWriter::put_files(FileGroup& group) {
  if (job_.stopped()) return;
  // Without the claim another import may have removed the chunks as left over.
  if (const absl::Status claimed = has_chunks(group) ? generations_.check() : absl::OkStatus();
      !claimed.ok()) {
    return job_.stop(with_context(claimed, "this import was stopped for too long; run it again"));
  }
  const auto sink = store_.writer();
  for (const GroupFile& file : group.files) {
    if (file.state != GroupFile::State::kGood) continue;
    job_.put(
        *sink, key_of(file.found.path),
        file.value.empty() ? encode_tree_entry(file.entry.header, file.entry.extras) : file.value);
  }
  take_step(group, *sink);
  // They may have been written after the claim was lost.
  if (const absl::Status claimed = has_chunks(group) ? generations_.check() : absl::OkStatus();
      !claimed.ok()) {
    return job_.stop(with_context(claimed, "this import was stopped for too long; run it again"));
  }
  for (const GroupFile& file : group.files) {
    if (file.state == GroupFile::State::kGood)
      generations_.note_imported(file.found.path, file.entry.header.generation);
  }
}

}  // namespace sluice
