#include "control/cluster_block/etcd_commits.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "control/cluster_block/checks.h"
#include "control/cluster_block/etcd_answers.h"
#include "control/cluster_block/etcd_calls.h"

namespace sluice::cluster_block {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

constexpr int64_t kMarkLeaseMs = 120'000;
// A mark is taken for a commit only while its lease has long to run.
constexpr int64_t kMarkUseMs = kMarkLeaseMs / 2;
// Until then a mark that is not there was never written.
constexpr int64_t kMarkSureMs = kMarkLeaseMs - 10'000;
constexpr int kMarkTries = 3;

void add_comparison(TxnRequest* request, const std::string& key, Revision expected) {
  Compare* compare = request->add_compare();
  compare->set_result(Compare::EQUAL);
  compare->set_target(Compare::MOD);
  compare->set_key(key);
  compare->set_mod_revision(static_cast<int64_t>(expected));
  // What it is compared with if it fails. It also makes a transaction without changes a read that
  // waits for the newest state.
  auto* range = request->add_failure()->mutable_request_range();
  range->set_key(key);
  range->set_keys_only(true);
}

void add_put(TxnRequest* request, const std::string& key, const std::string& value, LeaseId lease) {
  auto* put = request->add_success()->mutable_request_put();
  put->set_key(key);
  put->set_value(value);
  put->set_lease(static_cast<int64_t>(lease));
}

// 0: it is not there.
Revision revision_in(const TxnResponse& response, int index) {
  if (index >= response.responses_size()) return 0;
  const auto& range = response.responses(index).response_range();
  return range.kvs().empty() ? 0 : static_cast<Revision>(range.kvs(0).mod_revision());
}

Revision revision_of(const TxnResponse& response) {
  return static_cast<Revision>(response.header().revision());
}

bool has_kind(const std::vector<ClusterOp>& ops, ClusterOp::Kind kind) {
  return std::any_of(ops.begin(), ops.end(), [kind](const auto& op) { return op.kind == kind; });
}

}  // namespace

absl::StatusOr<EtcdCommits::Mark> EtcdCommits::take_mark() {
  {
    const MutexLock lock(mutex_);
    if (lease_ != 0 && system_clock().monotonic_ms() < granted_ms_ + kMarkUseMs) {
      if (free_.empty()) return Mark{lease_, granted_ms_, keys_.mark(lease_, next_++), 0};
      Mark mark = std::move(free_.back());
      free_.pop_back();
      return mark;
    }
  }
  const int64_t asked_ms = system_clock().monotonic_ms();
  SLUICE_ASSIGN_OR_RETURN(const LeaseId lease, grant_lease(client_, kMarkLeaseMs));
  const MutexLock lock(mutex_);
  lease_ = lease;
  granted_ms_ = asked_ms;
  next_ = 0;
  free_.clear();
  return Mark{lease_, granted_ms_, keys_.mark(lease_, next_++), 0};
}

void EtcdCommits::give_back(Mark mark) {
  const MutexLock lock(mutex_);
  if (mark.lease == lease_) free_.push_back(std::move(mark));
}

void EtcdCommits::forget_lease(LeaseId lease) {
  const MutexLock lock(mutex_);
  if (lease == lease_) lease_ = 0;
}

TxnRequest EtcdCommits::request_of(const std::vector<ClusterOp>& ops, const Mark* mark) const {
  TxnRequest request;
  if (mark != nullptr) {
    add_comparison(&request, mark->key, mark->revision);
    add_put(&request, mark->key, "", mark->lease);
  }
  for (const ClusterOp& op : ops) {
    const std::string key = keys_.of(op.key);
    if (op.expected) add_comparison(&request, key, *op.expected);
    if (op.kind == ClusterOp::Kind::kPut) add_put(&request, key, op.value, op.lease);
    if (op.kind == ClusterOp::Kind::kErase) {
      request.add_success()->mutable_request_delete_range()->set_key(key);
    }
  }
  return request;
}

absl::StatusOr<TxnResponse> EtcdCommits::send(const TxnRequest& request, bool repeats, int* sent) {
  TxnResponse response;
  EtcdClient::Limits limits;
  limits.repeats = repeats;
  limits.may_be_invalid = true;
  SLUICE_RETURN_IF_ERROR(client_.call(
      [&](const EtcdClient::Endpoint& endpoint, grpc::ClientContext* context) {
        ++*sent;
        response.Clear();
        const grpc::Status status = endpoint.kv->Txn(context, request, &response);
        if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) --*sent;
        return status;
      },
      limits));
  if (const absl::Status answered = check_answer(request, response); !answered.ok()) {
    return unavailable("{}: not an answer of etcd: {}; the commit may have been made",
                       client_.name(), message_of(answered));
  }
  return response;
}

absl::StatusOr<Revision> EtcdCommits::revision_of_mark(const std::string& key) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  request.set_keys_only(true);
  SLUICE_ASSIGN_OR_RETURN(const auto response, get_range(client_, request));
  return response.kvs().empty() ? 0 : static_cast<Revision>(response.kvs(0).mod_revision());
}

absl::Status EtcdCommits::mismatch(const std::vector<ClusterOp>& ops, const TxnResponse& response,
                                   int first) const {
  int index = first;
  for (const ClusterOp& op : ops) {
    if (!op.expected) continue;
    const Revision actual = revision_in(response, index++);
    if (actual != *op.expected) return revision_mismatch(op.key, actual, *op.expected);
  }
  return internal_error("{} refused a commit, all of whose comparisons hold", client_.name());
}

absl::Status EtcdCommits::check_leases(const std::vector<ClusterOp>& ops) {
  for (const ClusterOp& op : ops) {
    if (op.kind != ClusterOp::Kind::kPut || op.lease == 0) continue;
    SLUICE_ASSIGN_OR_RETURN(const bool is_there, has_lease(client_, op.lease));
    if (!is_there) return lease_ended(op.lease);
  }
  return absl::OkStatus();
}

absl::Status EtcdCommits::why_invalid(const absl::Status& refused,
                                      const std::vector<ClusterOp>& ops) {
  // A user that is missing is reported for any call.
  SLUICE_RETURN_IF_ERROR(newest_revision(client_, keys_.of("")).status());
  return failed_precondition(
      "{} refuses a commit of {} operations: {}; its --max-txn-ops must be at least 128, and its "
      "--max-request-bytes at least 1572864, which are its defaults",
      client_.name(), ops.size(), message_of(refused));
}

absl::StatusOr<Revision> EtcdCommits::commit_unmarked(const std::vector<ClusterOp>& ops,
                                                      bool repeats) {
  int sent = 0;
  auto response = send(request_of(ops, nullptr), repeats, &sent);
  if (absl::IsInvalidArgument(response.status())) return why_invalid(response.status(), ops);
  if (!response.ok()) return response.status();
  if (!response->succeeded()) return mismatch(ops, *response, 0);
  return revision_of(*response);
}

absl::StatusOr<std::optional<Revision>> EtcdCommits::commit_marked(
    const std::vector<ClusterOp>& ops, Mark mark) {
  int sent = 0;
  const auto response = send(request_of(ops, &mark), true, &sent);
  // Whether what is not there now was never there.
  const bool is_sure = sent <= 1 || system_clock().monotonic_ms() < mark.granted_ms + kMarkSureMs;
  const auto unknown = [&] {
    return unavailable("{} lost the answer to a commit, which may have been made", client_.name());
  };
  if (absl::IsNotFound(response.status())) {
    // A lease is gone: a put's, or the mark's.
    if (!is_sure) return unknown();
    if (absl::Status ended = check_leases(ops); !ended.ok()) {
      give_back(std::move(mark));
      return ended;
    }
    forget_lease(mark.lease);
    return std::optional<Revision>();
  }
  if (absl::IsResourceExhausted(response.status())) {
    // etcd makes the first commits that its space does not hold, and refuses them all the same.
    const auto moved = revision_of_mark(mark.key);
    if (!moved.ok()) return unknown();
    const bool is_made = *moved != 0 && *moved != mark.revision;
    if (is_made) mark.revision = *moved;
    if (is_made || sent == 0) {
      give_back(std::move(mark));
      if (is_made) return std::optional<Revision>(*moved);
      return response.status();
    }
  }
  // The mark is not used again: whether the commit was, or will be, made by what was sent before is
  // not known.
  const bool refused_after_one = sent == 1 && absl::IsResourceExhausted(response.status());
  if (!response.ok() && (sent > 1 || refused_after_one)) return unknown();
  if (absl::IsInvalidArgument(response.status())) return why_invalid(response.status(), ops);
  if (!response.ok()) return response.status();
  const Revision marked =
      response->succeeded() ? revision_of(*response) : revision_in(*response, 0);
  if (marked == mark.revision) {
    if (marked == 0 && !is_sure) return unknown();
    if (sent > 1) {
      // What was sent before may still be under way, and would be made if its comparisons came to
      // hold. It cannot be once the mark has moved.
      int fences = 0;
      const auto fence = send(request_of({}, &mark), true, &fences);
      if (!fence.ok()) return unknown();
      if (!fence->succeeded()) {
        // Somebody moved the mark: what was sent before, or the fence itself.
        if (fences > 1 || revision_in(*fence, 0) == 0) return unknown();
        mark.revision = revision_in(*fence, 0);
        const Revision made = mark.revision;
        give_back(std::move(mark));
        return std::optional<Revision>(made);
      }
      mark.revision = revision_of(*fence);
    }
    give_back(std::move(mark));
    return mismatch(ops, *response, 1);
  }
  if (marked == 0) {
    if (sent > 1) return unknown();
    forget_lease(mark.lease);
    return std::optional<Revision>();
  }
  mark.revision = marked;
  give_back(std::move(mark));
  return std::optional<Revision>(marked);
}

absl::StatusOr<Revision> EtcdCommits::commit(const std::vector<ClusterOp>& ops) {
  const bool puts = has_kind(ops, ClusterOp::Kind::kPut);
  if (!puts && !has_kind(ops, ClusterOp::Kind::kErase)) return commit_unmarked(ops, true);
  for (int tries = 0; tries < kMarkTries; ++tries) {
    absl::StatusOr<std::optional<Revision>> done;
    auto mark = take_mark();
    if (mark.ok()) {
      done = commit_marked(ops, *std::move(mark));
    } else {
      done = mark.status();
    }
    if (absl::IsResourceExhausted(done.status()) && !puts) return commit_unmarked(ops, false);
    if (!done.ok()) return done.status();
    if (*done) return **done;
  }
  return unavailable("{} does not keep the leases that it grants", client_.name());
}

}  // namespace sluice::cluster_block
