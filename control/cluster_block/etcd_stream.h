// One call of etcd's Watch, which carries all watches of a block until it breaks. Internal to
// control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "control/proto/etcd.grpc.pb.h"

namespace sluice::cluster_block {

// The methods are of one thread. gRPC's threads only put down what arrives and call `changed`. One
// response is read ahead: a slow reader holds etcd up, not memory.
class EtcdStream final
    : public grpc::ClientBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse> {
 public:
  EtcdStream(etcdserverpb::Watch::Stub& stub, std::unique_ptr<grpc::ClientContext> context,
             std::function<void()> changed);
  // Cancels it, and waits until gRPC has let go of it.
  ~EtcdStream() override;
  EtcdStream(const EtcdStream&) = delete;
  EtcdStream& operator=(const EtcdStream&) = delete;

  void send(etcdserverpb::WatchRequest request);
  // The next response, when it is there.
  std::optional<etcdserverpb::WatchResponse> take();
  // Nothing more comes.
  bool is_broken() const;

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  const std::unique_ptr<grpc::ClientContext> context_;
  const std::function<void()> changed_;
  mutable std::mutex mutex_;
  std::condition_variable done_changed_;
  etcdserverpb::WatchResponse response_;
  bool has_response_ = false;
  std::deque<etcdserverpb::WatchRequest> requests_;  // the first one is being written
  bool broken_ = false;
  bool done_ = false;
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_
