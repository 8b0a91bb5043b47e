#include "control/cli/jsonl.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "control/cli/base64.h"
#include "control/cli/sorted_spill.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr int kPollMs = 200;
constexpr size_t kMaxFields = 1001;

// The bytes of field `name`, or of `name`_b64.
absl::StatusOr<std::string> take_bytes(nlohmann::json& object, const std::string& name) {
  const auto plain = object.find(name);
  const auto encoded = object.find(name + "_b64");
  const bool has_plain = plain != object.end();
  const bool has_encoded = encoded != object.end();
  if (has_plain == has_encoded) {
    return invalid_argument("it needs {} \"{}\" and \"{}_b64\"",
                            has_plain ? "only one of" : "one of", name, name);
  }
  auto& field = has_plain ? *plain : *encoded;
  if (!field.is_string())
    return invalid_argument("\"{}{}\" is not a string", name, has_plain ? "" : "_b64");
  if (has_plain) return std::move(field.get_ref<std::string&>());
  std::string bytes;
  if (!base64_decode(field.get_ref<const std::string&>(), &bytes)) {
    return invalid_argument("\"{}_b64\" is not base64 (standard alphabet, padded)", name);
  }
  return bytes;
}

void append_json_string(std::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          fmt::format_to(std::back_inserter(*out), "\\u{:04x}", static_cast<uint8_t>(c));
        } else {
          out->push_back(c);
        }
    }
  }
  out->push_back('"');
}

void append_field(std::string_view name, std::string_view bytes, std::string* out) {
  *out += '"';
  *out += name;
  if (is_utf8(bytes)) {
    *out += "\":";
    append_json_string(bytes, out);
  } else {
    *out += "_b64\":\"";
    *out += base64_encode(bytes);
    *out += '"';
  }
}

// Lines of a file descriptor, of bounded length. Confined to one thread.
class LineReader {
 public:
  LineReader(int fd, const std::atomic<bool>& cancelled) : fd_(fd), cancelled_(cancelled) {}
  // False at the end. The view is valid until the next call.
  absl::StatusOr<bool> next(std::string_view* line) {
    ++number_;
    size_t searched = used_;
    while (true) {
      const size_t end = buffer_.find('\n', searched);
      if (end != std::string::npos) {
        *line = std::string_view(buffer_).substr(used_, end - used_);
        used_ = end + 1;
        return true;
      }
      if (buffer_.size() - used_ > kMaxJsonLineBytes) {
        return invalid_argument("line {}: over {} bytes long", number_, kMaxJsonLineBytes);
      }
      buffer_.erase(0, used_);  // once for each read, not for each line
      used_ = 0;
      searched = buffer_.size();
      SLUICE_ASSIGN_OR_RETURN(const bool more, read_more());
      if (more) continue;
      *line = buffer_;
      used_ = buffer_.size();
      return !line->empty();
    }
  }
  uint64_t number() const { return number_; }

 private:
  // Looks at the cancellation now and then, as a terminal or pipe may stay silent for ever.
  absl::StatusOr<bool> read_more() {
    pollfd readable{fd_, POLLIN, 0};
    while (poll(&readable, 1, kPollMs) == 0) {
      if (cancelled_) return cancelled("cancelled");
    }
    const size_t before = buffer_.size();
    buffer_.resize(before + kReadBytes);
    ssize_t got;
    do {
      got = read(fd_, buffer_.data() + before, kReadBytes);
    } while (got < 0 && errno == EINTR);
    buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0) return errno_status(errno, "read the JSON lines");
    return got > 0;
  }

  const int fd_;
  const std::atomic<bool>& cancelled_;
  std::string buffer_;
  size_t used_ = 0;
  uint64_t number_ = 0;
};

absl::Status put_lines(int fd, RecordSink& sink, StreamProgress& progress) {
  LineReader lines(fd, progress.cancelled);
  std::string_view line;
  while (true) {
    if (progress.cancelled) return cancelled("cancelled");
    SLUICE_ASSIGN_OR_RETURN(const bool more, lines.next(&line));
    if (!more) return absl::OkStatus();
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const absl::StatusOr<JsonRecord> record = parse_json_record(line);
    absl::Status status = record.status();
    if (status.ok()) status = sink.put(record->key, record->value);
    if (!status.ok()) return with_context(status, fmt::format("line {}", lines.number()));
    progress.count(record->key.size() + record->value.size());
  }
}

}  // namespace

absl::StatusOr<JsonRecord> parse_json_record(std::string_view line) {
  nlohmann::json object;
  std::set<std::string> names;
  std::string twice;
  const auto note_name = [&](int depth, nlohmann::json::parse_event_t event,
                             nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::key && depth == 1) {
      const auto& name = parsed.get_ref<const std::string&>();
      if (names.size() < kMaxFields && !names.insert(name).second) twice = name;
    }
    return true;
  };
  try {
    object = nlohmann::json::parse(line.begin(), line.end(), note_name);
  } catch (const nlohmann::json::exception& error) {
    return invalid_argument("not JSON: {}", printable(error.what()));
  }
  if (!object.is_object()) return invalid_argument("not a JSON object");
  if (!twice.empty()) return invalid_argument("it has the field \"{}\" twice", printable(twice));
  if (names.size() >= kMaxFields) return invalid_argument("it has over {} fields", kMaxFields - 1);
  JsonRecord record;
  SLUICE_ASSIGN_OR_RETURN(record.key, take_bytes(object, "key"));
  SLUICE_ASSIGN_OR_RETURN(record.value, take_bytes(object, "value"));
  if (record.key.empty() || record.key.size() > kMaxKeyBytes) {
    return invalid_argument("a key of {} bytes: 1 to {}", record.key.size(), kMaxKeyBytes);
  }
  if (record.value.size() > kMaxValueBytes) {
    return invalid_argument("a value of {} bytes: at most {}", record.value.size(), kMaxValueBytes);
  }
  return record;
}

std::string format_json_record(std::string_view key, std::string_view value) {
  std::string line;
  line.reserve(key.size() + value.size() + 32);
  line += '{';
  append_field("key", key, &line);
  line += ',';
  append_field("value", value, &line);
  line += "}\n";
  return line;
}

absl::Status import_jsonl(int fd, RecordSink& sink, StreamProgress& progress, SinkTotals* totals) {
  const absl::Status status = put_lines(fd, sink, progress);
  *totals = sink.finish();
  return status;
}

absl::StatusOr<JsonlExportTotals> export_jsonl(
    RecordSource& source, std::string_view prefix, const std::string& temporary_folder,
    StreamProgress& progress, const std::function<absl::Status(std::string_view)>& write) {
  SortedSpill spill(temporary_folder);
  JsonlExportTotals totals;
  const auto add = [&](std::string_view key, std::string_view value) -> absl::Status {
    if (progress.cancelled) return cancelled("cancelled");
    SLUICE_RETURN_IF_ERROR(spill.add(key, format_json_record(key, value)));
    ++totals.records;
    totals.bytes += key.size() + value.size();
    progress.count(key.size() + value.size());
    return absl::OkStatus();
  };
  SLUICE_RETURN_IF_ERROR(source.scan(prefix, add));
  SLUICE_RETURN_IF_ERROR(spill.drain([&](std::string_view piece) -> absl::Status {
    if (progress.cancelled) return cancelled("cancelled");
    return write(piece);
  }));
  return totals;
}

}  // namespace sluice
