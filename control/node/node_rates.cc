#include "control/node/node_rates.h"

#include <algorithm>

#include "base/file.h"
#include "base/status.h"
#include "control/node/measure.h"

namespace sluice {
namespace {

// Less than this between two looks, or in messages of less than this, is talk and not bulk: it
// tells what a message costs, not what the link carries.
constexpr uint64_t kLeastBulkBytes = uint64_t{1} << 20;
constexpr uint64_t kLeastMessageBytes = uint64_t{32} << 10;

}  // namespace

absl::Status NodeRates::probe(const std::string& address) {
  SLUICE_ASSIGN_OR_RETURN(probe_, measure_rates(options_.data_folder, clock_));
  probe_.link.rate = reported_link_rate(address, kNetworkDevices);
  return absl::OkStatus();
}

MeasuredRates NodeRates::rates() const {
  MeasuredRates rates = work_.rates(probe_);
  rates.link = link_rate(rates.link, probe_.link);
  rates.limit = options_.limit;
  // A disk that cannot be asked has the space that it had.
  rates.free_bytes = free_bytes_at(options_.data_folder).value_or(probe_.free_bytes);
  return rates;
}

void NodeRates::look_at(const Exchange& exchange) {
  work_.follow(&MeasuredRates::ingest, ingest_.times());
  const StageTimes wire = exchange.times();
  const TransportCounters moved = exchange.counters();
  const uint64_t messages = moved.sent_messages + moved.received_messages - messages_;
  const uint64_t bytes = wire.bytes - wire_.bytes;
  if (bytes >= kLeastBulkBytes && bytes / std::max<uint64_t>(messages, 1) >= kLeastMessageBytes) {
    work_.add(&MeasuredRates::link, bytes, wire.busy_ns - wire_.busy_ns);
  }
  wire_ = wire;
  messages_ += messages;
}

}  // namespace sluice
