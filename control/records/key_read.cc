#include "control/records/key_read.h"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "base/defect.h"
#include "base/status.h"
#include "control/peers/rpc.h"
#include "control/proto/peer.pb.h"

namespace sluice {
namespace {

// How long the others are waited for where a replica that takes no writes would do.
constexpr int64_t kInsteadOfReadOnlyMs = 1'000;

}  // namespace

absl::StatusOr<std::optional<Record>> KeyRead::run() {
  SLUICE_ASSIGN_OR_RETURN(const auto replicas, ranked_replicas(context_, slot_));
  const size_t answers = ask(replicas, needed_, times_);
  if (answers < needed_) return too_few_to_read(slot_, answers, needed_, reasons_);
  if (missing() > 0 && !defect(Defect::kReadsLeaveDifferences)) {
    SLUICE_RETURN_IF_ERROR(settle(replicas));
  }
  return std::move(newest_);
}

size_t KeyRead::ask(const std::vector<std::string>& nodes, size_t needed,
                    const ReplicaTimes& times) {
  ReplicaQuestion<v1::ReadRequest, v1::ReadReply> question;
  question.request.add_keys(key_.data(), key_.size());
  question.begin = [](PeerNode& node, grpc::ClientContext* call, const v1::ReadRequest* request,
                      v1::ReadReply* reply, auto done) {
    node.peer().async()->Read(call, request, reply, std::move(done));
  };
  question.here = [&]() -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(auto record, context_.store->get(key_));
    take(context_.name, std::move(record), !context_.store->writable().ok());
    return absl::OkStatus();
  };
  question.take = [&](PeerNode& node, v1::ReadReply& reply) -> absl::Status {
    SLUICE_ASSIGN_OR_RETURN(auto record, record_of(node.name(), key_, reply));
    take(node.name(), std::move(record), reply.read_only());
    return absl::OkStatus();
  };
  return ask_replicas(context_, nodes, needed, times, question, &reasons_);
}

void KeyRead::take(const std::string& node, std::optional<Record> record, bool is_read_only) {
  answered_.insert(node);
  if (is_read_only) read_only_.insert(node);
  const RecordSummary its = record.has_value() ? record->view().summary() : RecordSummary();
  if (record.has_value() && (!newest_.has_value() || summary_ < its)) {
    current_.clear();
    newest_ = std::move(record);
    summary_ = its;
  } else if (record.has_value() != newest_.has_value() || its != summary_) {
    return;
  }
  current_.insert(node);
}

size_t KeyRead::missing() const {
  const auto settled =
      std::count_if(current_.begin(), current_.end(),
                    [this](const std::string& node) { return !read_only_.contains(node); });
  return needed_ - std::min(needed_, static_cast<size_t>(settled));
}

absl::Status KeyRead::settle(const std::vector<std::string>& replicas) {
  // Others may hold it already.
  std::vector<std::string> others;
  std::copy_if(replicas.begin(), replicas.end(), std::back_inserter(others),
               [this](const std::string& node) { return !answered_.contains(node); });
  ask(others, std::min(others.size(), missing()), times_left(read_only_.size() >= missing()));
  if (missing() == 0 || !newest_.has_value()) return absl::OkStatus();
  others.clear();
  std::copy_if(replicas.begin(), replicas.end(), std::back_inserter(others),
               [this](const std::string& node) {
                 return !current_.contains(node) && !read_only_.contains(node);
               });
  const size_t stored = store(others, missing(), times_left(read_only_.size() >= missing()));
  if (stored >= missing()) return absl::OkStatus();
  // A full disk must not make unreadable what is there.
  if (stored + read_only_.size() < missing()) {
    return too_few_to_read(slot_, needed_ - missing() + stored, needed_, reasons_);
  }
  // Their clocks pass the record's stamp all the same.
  store({read_only_.begin(), read_only_.end()}, read_only_.size(), times_left(true));
  return absl::OkStatus();
}

size_t KeyRead::store(const std::vector<std::string>& nodes, size_t needed,
                      const ReplicaTimes& times) {
  const RecordView newest = newest_->view();
  const uint64_t epoch = context_.directory->snapshot()->epoch();
  ReplicaQuestion<v1::ApplyRequest, v1::ApplyReply> question;
  question.request.set_epoch(epoch);
  fill(newest, question.request.add_records());
  question.begin = [](PeerNode& node, grpc::ClientContext* call, const v1::ApplyRequest* request,
                      v1::ApplyReply* reply, auto done) {
    node.peer().async()->Apply(call, request, reply, std::move(done));
  };
  question.here = [&]() -> absl::Status {
    const std::span<const RecordView> records(&newest, 1);
    SLUICE_ASSIGN_OR_RETURN(const auto results, context_.store->apply(records));
    return clash_among(records, results);
  };
  question.take = [epoch](PeerNode& node, const v1::ApplyReply& reply) -> absl::Status {
    if (reply.epoch() != epoch) return unavailable("has another distribution table");
    node.remember(reply.token(), reply.sequence());
    return absl::OkStatus();
  };
  return ask_replicas(context_, nodes, needed, times, question, &reasons_);
}

ReplicaTimes KeyRead::times_left(bool would_do) const {
  const int64_t left_ms = std::max<int64_t>(deadline_.left_ms(), 1);
  return {would_do ? std::min(left_ms, kInsteadOfReadOnlyMs) : left_ms, times_.hedge_ms};
}

}  // namespace sluice
