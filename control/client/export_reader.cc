#include "control/client/export_reader.h"

#include <algorithm>

#include "base/status.h"
#include "dataplane/block/record.h"

namespace sluice {
namespace {

constexpr uint32_t kSlotsOfExport = 256;

}  // namespace

ExportReader::ExportReader(uint32_t slot_bits, std::string_view prefix,
                           const ClusterClient::RecordCallback& callback, uint32_t value_bytes)
    : slot_bits_(slot_bits), callback_(callback) {
  request_.set_prefix(prefix.data(), prefix.size());
  if (value_bytes != UINT32_MAX) request_.set_value_bytes(value_bytes);
}

grpc::Status ExportReader::read_from(PeerNode& node, int64_t page_ms, int64_t whole_ms,
                                     bool* progress) {
  request_.set_first_slot(slot_);
  request_.set_slots(std::min(kSlotsOfExport, (uint32_t{1} << slot_bits_) - slot_));
  const uint32_t end = slot_ + request_.slots();
  const auto stream = node.link().export_slots(request_, whole_ms);
  v1::ExportPage page;
  while (stream->read(&page, page_ms)) {
    if (slot_ == end || !is_next(page)) {
      failed_ = data_loss("{}: its export of slot {} breaks the protocol", node.name(), slot_);
    } else {
      *progress = *progress || page.slot_done() || !page.items().empty();
      failed_ = take(page);
    }
    if (!failed_.ok()) return grpc::Status::OK;
  }
  if (stream->status().ok() && slot_ != end) {
    failed_ = data_loss("{}: its export ends in slot {} instead of {}", node.name(), slot_, end);
  }
  return stream->status();
}

bool ExportReader::is_next(const v1::ExportPage& page) const {
  if (page.slot() != slot_) return false;
  std::string_view after = request_.after();
  for (const auto& item : page.items()) {
    const std::string_view key = item.key();
    if (key.size() > kMaxKeyBytes || item.value().size() > kMaxValueBytes || key <= after ||
        !key.starts_with(request_.prefix()) || slot_of(key, slot_bits_) != slot_) {
      return false;
    }
    after = key;
  }
  return true;
}

absl::Status ExportReader::take(const v1::ExportPage& page) {
  for (const auto& item : page.items()) {
    SLUICE_RETURN_IF_ERROR(callback_(item.key(), item.value()));
    request_.set_after(item.key());
    ++totals_.records;
    totals_.bytes += item.key().size() + item.value().size();
  }
  if (page.slot_done()) {
    ++slot_;
    request_.clear_after();
  }
  return absl::OkStatus();
}

}  // namespace sluice
