// A node's stream of pages, each of which is waited for a bounded time: a node that stands still
// costs its reader one wait, however long the whole stream may take.
//
// Confined to one thread. Ends the call when it goes.
#ifndef SLUICE_CONTROL_PEERS_PAGE_STREAM_H_
#define SLUICE_CONTROL_PEERS_PAGE_STREAM_H_

#include <grpcpp/support/status.h>

#include <cstdint>

namespace sluice {

template <typename Page>
class PageStream {
 public:
  virtual ~PageStream() = default;
  // False when there is no further page: status() then says why. After `timeout_ms` without one the
  // stream is cancelled, with DEADLINE_EXCEEDED.
  virtual bool read(Page* page, int64_t timeout_ms) = 0;
  virtual const grpc::Status& status() const = 0;
};

}  // namespace sluice

#endif  // SLUICE_CONTROL_PEERS_PAGE_STREAM_H_
