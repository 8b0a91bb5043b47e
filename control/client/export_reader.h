// An export of a cluster's records, slot by slot, from whatever nodes answer.
//
// What was handed out is not handed out again: the next stream, of the same node or another one,
// begins behind it. Pages are what the node says; a page that is not the next one of what was asked
// for ends the export with DATA_LOSS that names the node, before any of it is handed out: a record
// must neither be missing from an export that succeeds nor be in it twice.
//
// Confined to one thread.
#ifndef SLUICE_CONTROL_CLIENT_EXPORT_READER_H_
#define SLUICE_CONTROL_CLIENT_EXPORT_READER_H_

#include <grpcpp/support/status.h>

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "control/client/cluster_client.h"
#include "control/peers/peers.h"

namespace sluice {

class ExportReader {
 public:
  // The callback outlives it.
  // At most the first `value_bytes` of each value are asked for; UINT32_MAX: all.
  ExportReader(uint32_t slot_bits, std::string_view prefix,
               const ClusterClient::RecordCallback& callback, uint32_t value_bytes = UINT32_MAX);

  bool done() const { return slot_ >> slot_bits_ != 0; }
  const ExportTotals& totals() const { return totals_; }
  // Not OK once the callback refused a record, or a node broke the protocol: the export is over.
  const absl::Status& failed() const { return failed_; }

  // Reads on from one node, until a range of slots is done or it fails. `progress` is set when
  // there was anything to take.
  grpc::Status read_from(PeerNode& node, int64_t page_ms, int64_t whole_ms, bool* progress);

 private:
  absl::Status take(const v1::ExportPage& page);
  bool is_next(const v1::ExportPage& page) const;

  const uint32_t slot_bits_;
  const ClusterClient::RecordCallback& callback_;
  v1::ExportRequest request_;
  uint32_t slot_ = 0;
  ExportTotals totals_;
  absl::Status failed_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_CLIENT_EXPORT_READER_H_
