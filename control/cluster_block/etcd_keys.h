// How keys of a cluster block stand in etcd (docs/formats.md): below PREFIX/, documents apart from
// the marks of commits. Internal to control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_KEYS_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_KEYS_H_

#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "control/cluster_block/cluster_block.h"

namespace sluice::cluster_block {

class EtcdKeys {
 public:
  // No part of a prefix has these names (parse_cluster_url()), so no cluster's keys are below
  // another's.
  static constexpr std::string_view kDocuments = "doc";
  static constexpr std::string_view kMarks = "commit";

  explicit EtcdKeys(std::string_view prefix)
      : documents_(fmt::format("{}/{}/", prefix, kDocuments)),
        marks_(fmt::format("{}/{}/", prefix, kMarks)) {}

  std::string of(std::string_view key) const { return documents_ + std::string(key); }
  // What was of() something; nullopt for others.
  std::optional<std::string> ours(std::string_view etcd_key) const {
    if (!etcd_key.starts_with(documents_)) return std::nullopt;
    return std::string(etcd_key.substr(documents_.size()));
  }
  // The end of the range that begins at of(prefix) and has all keys below it.
  std::string end_of(std::string_view prefix) const {
    std::string end = of(prefix);
    while (end.back() == '\xff') end.pop_back();
    end.back() = static_cast<char>(end.back() + 1);
    return end;
  }
  // Unique as long as the lease's number is not given anew.
  std::string mark(LeaseId lease, uint64_t number) const {
    return fmt::format("{}{:016x}/{}", marks_, lease, number);
  }

 private:
  const std::string documents_;
  const std::string marks_;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_KEYS_H_
