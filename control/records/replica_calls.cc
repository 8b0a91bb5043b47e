#include "control/records/replica_calls.h"

#include <utility>

#include "base/status.h"

namespace sluice {

absl::StatusOr<std::vector<std::string>> ranked_replicas(const NodeContext& context,
                                                         uint32_t slot) {
  const auto snapshot = context.directory->snapshot();
  if (snapshot->table == nullptr) return unavailable("there is no distribution table yet");
  std::vector<std::pair<int, std::string>> ranked;
  for (const uint16_t member : snapshot->table->replicas_of(slot)) {
    const std::string& name = snapshot->table->members()[member].name;
    int rank = 0;
    if (name != context.name) {
      const auto node = context.peers->find(name);
      rank = !node.ok() ? 4 : (*node)->available() ? 1 : 2;
      if (!snapshot->live(name)) rank += 2;
    }
    ranked.emplace_back(rank, name);
  }
  return by_rank(std::move(ranked));
}

void add_reason(std::string* reasons, std::string_view node, const absl::Status& status) {
  const std::string_view message = message_of(status);
  *reasons += reasons->empty() ? "" : "; ";
  if (!message.starts_with(node)) *reasons += fmt::format("{}: ", node);
  *reasons += message;
}

absl::Status too_few_to_read(uint32_t slot, size_t readable, size_t needed,
                             const std::string& reasons) {
  return unavailable("slot {}: {} of the {} replicas that a read needs can be read; {}", slot,
                     readable, needed, reasons);
}

absl::Status late(int64_t waited_ms) {
  return deadline_exceeded("is late: no answer within {} s", static_cast<double>(waited_ms) / 1000);
}

}  // namespace sluice
