#include "control/records/slot_cursor.h"

#include <utility>

#include "base/status.h"
#include "control/peers/page_stream.h"
#include "control/peers/rpc.h"

namespace sluice {

namespace {

class LocalCursor final : public SlotCursor {
 public:
  LocalCursor(Store& store, const SlotRange& range)
      : prefix_(range.prefix), scan_(store.scan(range.slot, range.first_key())) {}

  absl::StatusOr<bool> next() override {
    SLUICE_ASSIGN_OR_RETURN(const bool more, scan_->next(&item_));
    return more && item_.key.starts_with(prefix_);
  }
  std::string_view key() const override { return item_.key; }
  const RecordSummary& summary() const override { return item_.summary; }
  absl::StatusOr<std::string> value(RecordSummary* summary) override {
    *summary = item_.summary;
    return scan_->value(item_);
  }

 private:
  const std::string prefix_;
  std::unique_ptr<SlotScan> scan_;
  SlotScan::Item item_;
};

class RemoteCursor final : public SlotCursor {
 public:
  RemoteCursor(std::shared_ptr<PeerNode> node, const SlotRange& range, bool values,
               const ScanTimes& times)
      : node_(std::move(node)),
        range_(range),
        page_ms_(times.page_ms),
        values_(values),
        stream_(node_->link().scan_slot(request_of(range, values), times.whole_ms)) {}

  absl::StatusOr<bool> next() override {
    if (++index_ >= page_.items_size()) {
      index_ = 0;
      // A page without items says nothing; the next one may have some.
      do {
        page_.Clear();
        if (stream_->read(&page_, page_ms_)) continue;
        node_->note(stream_->status());
        if (!stream_->status().ok()) return from_peer(stream_->status(), node_->name());
        return false;
      } while (page_.items_size() == 0);
    }
    return read_item();
  }
  std::string_view key() const override { return page_.items(index_).key(); }
  const RecordSummary& summary() const override { return summary_; }

  absl::StatusOr<std::string> value(RecordSummary* summary) override {
    *summary = summary_;
    if (summary_.tombstone) return std::string();
    if (values_) return std::move(*page_.mutable_items(index_)->mutable_value());
    grpc::ClientContext context;
    set_timeout(context, page_ms_);
    v1::ReadRequest request;
    request.add_keys(page_.items(index_).key());
    v1::ReadReply reply;
    const grpc::Status status = node_->peer().Read(&context, request, &reply);
    node_->note(status);
    if (!status.ok()) return from_peer(status, node_->name());
    SLUICE_ASSIGN_OR_RETURN(auto record, record_of(node_->name(), request.keys(0), reply));
    if (record.has_value()) *summary = record->view().summary();
    if (!record.has_value() || *summary < summary_) {
      return data_loss("{}: a record of slot {} is listed but cannot be read", node_->name(),
                       range_.slot);
    }
    return std::move(record->value);
  }

 private:
  static v1::ScanRequest request_of(const SlotRange& range, bool values) {
    v1::ScanRequest request;
    request.set_slot(range.slot);
    request.set_prefix(range.prefix);
    request.set_after(range.after);
    request.set_values(values);
    return request;
  }

  absl::StatusOr<bool> read_item() {
    const v1::ScanItem& item = page_.items(index_);
    const auto summary = summary_of(item);
    if (!summary.ok() || !range_.has(item.key()) || !has_value_of(item, *summary)) {
      return data_loss("{}: its scan of slot {} breaks the protocol", node_->name(), range_.slot);
    }
    range_.after = item.key();
    summary_ = *summary;
    return true;
  }

  bool has_value_of(const v1::ScanItem& item, const RecordSummary& summary) const {
    if (!values_ || summary.tombstone) return item.value().empty();
    return item.value().size() == summary.value_bytes &&
           xxh3_128(item.value()) == summary.value_digest;
  }

  const std::shared_ptr<PeerNode> node_;
  SlotRange range_;  // what is left of it
  const int64_t page_ms_;
  const bool values_;
  const std::unique_ptr<PageStream<v1::ScanPage>> stream_;
  v1::ScanPage page_;
  int index_ = -1;
  RecordSummary summary_;
};

}  // namespace

std::string SlotRange::first_key() const {
  if (after.empty() || after < prefix) return prefix;
  return after + std::string(1, '\0');
}

std::unique_ptr<SlotCursor> open_local_cursor(Store& store, const SlotRange& range) {
  return std::make_unique<LocalCursor>(store, range);
}

std::unique_ptr<SlotCursor> open_remote_cursor(std::shared_ptr<PeerNode> node,
                                               const SlotRange& range, bool values,
                                               const ScanTimes& times) {
  return std::make_unique<RemoteCursor>(std::move(node), range, values, times);
}

}  // namespace sluice
