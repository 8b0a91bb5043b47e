// Pages of an answer over gRPC.
#ifndef SLUICE_CONTROL_SERVICE_GRPC_PAGE_SINK_H_
#define SLUICE_CONTROL_SERVICE_GRPC_PAGE_SINK_H_

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/mutex.h"
#include "base/status.h"
#include "control/service/page_sink.h"

namespace sluice {

template <typename Page>
class GrpcPageSink final : public PageSink<Page> {
 public:
  GrpcPageSink(grpc::ServerContext& call, grpc::ServerWriter<Page>& writer,
               int64_t stall_ms = kReaderStallMs)
      : call_(call), writer_(writer), stall_ms_(stall_ms) {}

  absl::Status write(const Page& page) override {
    const auto cut = std::make_shared<Cut>(&call_);
    grpc::Alarm alarm;
    alarm.Set(std::chrono::system_clock::now() + std::chrono::milliseconds(stall_ms_),
              [cut](bool due) {
                const MutexLock lock(cut->mutex);
                if (!due || cut->call == nullptr) return;
                cut->call->TryCancel();
                cut->stalled = true;
              });
    const bool written = writer_.Write(page);
    const MutexLock lock(cut->mutex);
    cut->call = nullptr;
    if (written) return absl::OkStatus();
    if (cut->stalled) return cancelled("the reader took nothing for {} s", stall_ms_ / 1000);
    return cancelled("the reader went away");
  }

 private:
  struct Cut {
    explicit Cut(grpc::ServerContext* written) : call(written) {}
    Mutex mutex;
    grpc::ServerContext* call SLUICE_GUARDED_BY(mutex);  // null once the page is written
    bool stalled SLUICE_GUARDED_BY(mutex) = false;
  };
  grpc::ServerContext& call_;
  grpc::ServerWriter<Page>& writer_;
  const int64_t stall_ms_;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_SERVICE_GRPC_PAGE_SINK_H_
