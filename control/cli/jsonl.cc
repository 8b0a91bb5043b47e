#include "control/cli/jsonl.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/sorted_spill.h"
#include "base/status.h"
#include "base/text.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;
constexpr int kPollMs = 200;
constexpr size_t kMaxFields = 1001;

// What one line says, field by field. Nothing is kept of fields that no record has, whatever is in
// them: a line of nothing but brackets would take 64 times its own room.
class LineFields final : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Field {
    bool there = false;
    bool is_string = false;
    std::string text;
  };

  bool null() override { return take_other(); }
  bool boolean(bool /*value*/) override { return take_other(); }
  bool number_integer(int64_t /*value*/) override { return take_other(); }
  bool number_unsigned(uint64_t /*value*/) override { return take_other(); }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return take_other(); }
  bool binary(binary_t& /*value*/) override { return take_other(); }
  bool string(std::string& text) override {
    if (depth_ == 1 && field_ != nullptr) *field_ = {true, true, std::move(text)};
    return true;
  }
  bool start_object(size_t /*size*/) override {
    if (depth_ > 0) return take_other() && descend();
    is_object_ = true;
    return descend();
  }
  bool start_array(size_t /*size*/) override { return take_other() && descend(); }
  bool end_object() override { return ascend(); }
  bool end_array() override { return ascend(); }
  bool key(std::string& name) override {
    if (depth_ != 1) return true;
    const auto wanted = fields_.find(name);
    field_ = wanted == fields_.end() ? nullptr : &wanted->second;
    if (names_.size() < kMaxFields && !names_.insert(name).second) twice_ = printable(name);
    return true;
  }
  bool parse_error(size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    error_ = printable(error.what());
    return false;
  }

  absl::Status check() const {
    if (!error_.empty()) return invalid_argument("not JSON: {}", error_);
    if (!is_object_) return invalid_argument("not a JSON object");
    if (!twice_.empty()) return invalid_argument("it has the field \"{}\" twice", twice_);
    if (names_.size() >= kMaxFields)
      return invalid_argument("it has over {} fields", kMaxFields - 1);
    return absl::OkStatus();
  }
  // The bytes of field `name`, or of `name`_b64.
  absl::StatusOr<std::string> take_bytes(const std::string& name) {
    Field& plain = fields_[name];
    Field& encoded = fields_[name + "_b64"];
    if (plain.there == encoded.there) {
      return invalid_argument("it needs {} \"{}\" and \"{}_b64\"",
                              plain.there ? "only one of" : "one of", name, name);
    }
    Field& field = plain.there ? plain : encoded;
    if (!field.is_string)
      return invalid_argument("\"{}{}\" is not a string", name, plain.there ? "" : "_b64");
    if (plain.there) return std::move(field.text);
    std::string bytes;
    if (!base64_decode(field.text, &bytes)) {
      return invalid_argument("\"{}_b64\" is not base64 (standard alphabet, padded)", name);
    }
    return bytes;
  }

 private:
  bool take_other() {
    if (depth_ == 1 && field_ != nullptr) *field_ = {true, false, {}};
    return true;
  }
  bool descend() {
    ++depth_;
    return true;
  }
  bool ascend() {
    --depth_;
    return true;
  }

  std::map<std::string, Field, std::less<>> fields_ = {
      {"key", {}}, {"key_b64", {}}, {"value", {}}, {"value_b64", {}}};
  Field* field_ = nullptr;  // whose value comes next
  std::set<std::string> names_;
  size_t depth_ = 0;
  bool is_object_ = false;
  std::string twice_;
  std::string error_;
};

// Reads the usual line, two fields of ASCII text without escapes, several times faster than the
// parser, which reads any other.
class PlainLine {
 public:
  explicit PlainLine(std::string_view line) : rest_(line) {}
  bool take(char c) {
    skip_space();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_string(std::string_view* text) {
    if (!take('"')) return false;
    const size_t end = rest_.find('"');
    if (end == std::string_view::npos) return false;
    *text = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    bool plain = true;
    for (const char c : *text) plain &= c >= 0x20 && c != '\\' && c != 0x7f;
    return plain;
  }
  bool take_field(std::string_view* name, std::string_view* text) {
    return take_string(name) && take(':') && take_string(text);
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }

 private:
  void skip_space() {
    while (!rest_.empty() &&
           (rest_.front() == ' ' || rest_.front() == '\t' || rest_.front() == '\r')) {
      rest_.remove_prefix(1);
    }
  }
  std::string_view rest_;
};

// False when the line is not a usual one, or not right.
bool read_plain_record(std::string_view line, JsonRecord* record) {
  PlainLine in(line);
  std::string_view names[2], texts[2];
  if (!in.take('{') || !in.take_field(&names[0], &texts[0]) || !in.take(',') ||
      !in.take_field(&names[1], &texts[1]) || !in.take('}') || !in.at_end()) {
    return false;
  }
  const auto set = [&](std::string_view name, std::string* bytes) {
    for (size_t i = 0; i < 2; ++i) {
      if (!names[i].starts_with(name)) continue;
      const std::string_view form = names[i].substr(name.size());
      if (form == "_b64") return base64_decode(texts[i], bytes);
      if (!form.empty()) return false;
      *bytes = texts[i];
      return true;
    }
    return false;
  };
  return set("key", &record->key) && set("value", &record->value);
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

size_t escaped_size(std::string_view text) {
  size_t size = text.size();
  for (const char c : text) {
    if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t') {
      ++size;
    } else if (static_cast<uint8_t>(c) < 0x20) {
      size += 5;
    }
  }
  return size;
}

// Long text that is longer than base64 is written as this, so that no value makes a line that is
// too long to be read.
void append_field(std::string_view name, std::string_view bytes, std::string* out) {
  *out += '"';
  *out += name;
  constexpr size_t kAlwaysText = size_t{1} << 20;
  if (is_utf8(bytes) && escaped_size(bytes) <= std::max((bytes.size() + 2) / 3 * 4, kAlwaysText)) {
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
    const size_t before = buffer_.size();
    while (true) {
      pollfd readable{fd_, POLLIN, 0};
      while (poll(&readable, 1, kPollMs) == 0) {
        if (cancelled_) return cancelled("cancelled");
      }
      buffer_.resize(before + kReadBytes);
      const ssize_t got = read(fd_, buffer_.data() + before, kReadBytes);
      const int error = errno;
      buffer_.resize(before + static_cast<size_t>(std::max<ssize_t>(got, 0)));
      if (got >= 0) return got > 0;
      // Somebody who shares a non-blocking descriptor may have been faster.
      if (error != EINTR && error != EAGAIN) return errno_status(error, "read the JSON lines");
    }
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
  // The parser takes it for the end of its input.
  if (line.find('\0') != std::string_view::npos) return invalid_argument("it has a NUL byte");
  JsonRecord record;
  if (!read_plain_record(line, &record)) {
    LineFields fields;
    nlohmann::json::sax_parse(line.begin(), line.end(), &fields);
    SLUICE_RETURN_IF_ERROR(fields.check());
    SLUICE_ASSIGN_OR_RETURN(record.key, fields.take_bytes("key"));
    SLUICE_ASSIGN_OR_RETURN(record.value, fields.take_bytes("value"));
  }
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
