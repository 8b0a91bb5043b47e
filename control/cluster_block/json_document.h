// Small JSON documents of the cluster block, read as hostile input: each field is there, of its
// type and in its range, or the whole document is refused with DATA_LOSS naming its key. Confined
// to one thread.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_JSON_DOCUMENT_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_JSON_DOCUMENT_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "base/status.h"
#include "base/text.h"
#include "control/cluster_block/checks.h"

namespace sluice {

class JsonDocument {
 public:
  // `format`: what the document's "format" must be.
  JsonDocument(std::string_view key, std::string_view text, std::string_view format) : key_(key) {
    json_ = nlohmann::json::parse(text, nullptr, false);
    if (!json_.is_object()) {
      fail("it is no JSON object");
      return;
    }
    std::string found;
    get("format", &found);
    if (status_.ok() && found != format)
      fail(fmt::format("it is '{}', not '{}'", found.substr(0, 40), format));
  }

  // The first error; further reads then do nothing.
  const absl::Status& status() const { return status_; }
  void fail(std::string_view what) {
    if (status_.ok()) {
      status_ = data_loss("document at key '{}' is damaged: {}", printable(key_), what);
    }
  }
  void fail_field(const char* name, std::string_view what) {
    fail(fmt::format("field '{}' {}", name, what));
  }

  const nlohmann::json* field(const char* name) {
    if (!status_.ok()) return nullptr;
    const auto found = json_.find(name);
    if (found != json_.end()) return &*found;
    fail_field(name, "is missing");
    return nullptr;
  }

  template <typename T>
  void get(const char* name, T* value) {
    const nlohmann::json* json = field(name);
    if (json != nullptr && !read(*json, value)) fail_field(name, "is not what it has to be");
  }

  // Whether the JSON value is a T in T's range; for the elements of arrays too.
  static bool read(const nlohmann::json& json, std::string* value) {
    if (!json.is_string()) return false;
    *value = json.get<std::string>();
    return true;
  }
  static bool read(const nlohmann::json& json, bool* value) {
    if (!json.is_boolean()) return false;
    *value = json.get<bool>();
    return true;
  }
  static bool read(const nlohmann::json& json, double* value) {
    if (!json.is_number()) return false;
    *value = json.get<double>();
    return std::isfinite(*value);
  }
  static bool read(const nlohmann::json& json, uint64_t* value) {
    if (!json.is_number_unsigned()) return false;
    *value = json.get<uint64_t>();
    return true;
  }
  static bool read(const nlohmann::json& json, uint32_t* value) {
    uint64_t wide = 0;
    if (!read(json, &wide) || wide > std::numeric_limits<uint32_t>::max()) return false;
    *value = static_cast<uint32_t>(wide);
    return true;
  }
  static bool read(const nlohmann::json& json, int64_t* value) {
    if (!json.is_number_integer()) return false;
    if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{INT64_MAX}) return false;
    *value = json.get<int64_t>();
    return true;
  }
  template <typename T>
  static bool read(const nlohmann::json& json, std::vector<T>* values) {
    if (!json.is_array()) return false;
    values->clear();
    for (const nlohmann::json& element : json) {
      if (!read(element, &values->emplace_back())) return false;
    }
    return true;
  }

 private:
  std::string key_;
  nlohmann::json json_;
  absl::Status status_;
};

// Text that came from anywhere, in a document: what is not UTF-8 is replaced rather than refused.
inline std::string dump_json(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_JSON_DOCUMENT_H_
