// One call of etcd's Watch, which carries all watches of a block until it breaks. Internal to
// control/cluster_block.
#ifndef SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_
#define SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>

#include <deque>
#include <memory>
#include <optional>

#include "base/mutex.h"
#include "control/proto/etcd.grpc.pb.h"

namespace sluice::cluster_block {

// Of one thread, which advances the call while it waits; only wake() is for others. One response is
// in memory: a slow reader holds etcd up.
class EtcdStream {
 public:
  EtcdStream(etcdserverpb::Watch::Stub& stub, std::unique_ptr<grpc::ClientContext> context);
  // Cancels it, and waits until gRPC has let go of it.
  ~EtcdStream();
  EtcdStream(const EtcdStream&) = delete;
  EtcdStream& operator=(const EtcdStream&) = delete;

  enum class News {
    kResponse,  // in response(), until the next wait()
    kWoken,     // wake() was called since the last kWoken
    kTimeout,
    kBroken,  // nothing more comes
  };
  News wait(int64_t timeout_ms);
  const etcdserverpb::WatchResponse& response() const { return response_; }
  void send(etcdserverpb::WatchRequest request);
  void wake();

 private:
  void handle(const void* tag, bool ok);
  void arm();
  void write_next();
  void read_next();

  const std::unique_ptr<grpc::ClientContext> context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<
      grpc::ClientAsyncReaderWriter<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>>
      call_;
  etcdserverpb::WatchResponse response_;
  std::deque<etcdserverpb::WatchRequest> requests_;  // the first one is being written
  bool started_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool has_response_ = false;
  bool broken_ = false;
  bool woken_ = false;
  Mutex mutex_;
  std::optional<grpc::Alarm> alarm_ SLUICE_GUARDED_BY(mutex_);  // cancelled to wake the thread
};

}  // namespace sluice::cluster_block

#endif  // SLUICE_CONTROL_CLUSTER_BLOCK_ETCD_STREAM_H_
