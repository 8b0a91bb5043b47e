// A target's streams to the sources of divergent slots: opened when a slot needs them, kept while
// there is room, closed in the order of their last use. Internal to dataplane/pipeline.
//
// All streams of a slot are reserved at once and opened before anything is asked for, and what is
// not in use may be closed at any time. So nobody holds one stream and waits for another: neither
// workers of one target nor targets in a circle.
#ifndef SLUICE_DATAPLANE_PIPELINE_MERGE_STREAMS_H_
#define SLUICE_DATAPLANE_PIPELINE_MERGE_STREAMS_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/backoff.h"
#include "base/mutex.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Where a source is now.
struct MergePeer {
  std::string address;  // of its data listener
  std::string start;    // names the start of its process: another one knows nothing of the job
};

// Thread-safe.
class MergeStreams {
 public:
  struct Options {
    std::string job;
    uint64_t attempt = 0;
    size_t receive_blocks = 2;  // of each stream
    size_t max_streams = 8;
    int64_t connect_timeout_ms = 3'000;
    std::function<absl::StatusOr<MergePeer>(const std::string& node)> find_source;
  };
  // A stream while somebody uses it.
  struct Held {
    std::string node;
    std::shared_ptr<Stream> stream;
    uint64_t requests = 0;  // made on it so far
  };

  MergeStreams(Exchange& exchange, Options options)
      : exchange_(exchange), options_(std::move(options)) {}
  // Nobody uses any of them by then.
  ~MergeStreams();

  // Streams to all of these nodes, each once and at most max_streams, in their order; waits for
  // room among them. Or to none, and the error of the node that could not be reached, which is
  // then left alone for a while: RESOURCE_EXHAUSTED when it has no room, and then all that are not
  // in use are closed.
  absl::StatusOr<std::vector<Held>> open(const std::vector<std::string>& nodes);
  // Those that are closed are dropped, and their nodes left alone for a while: a source closes them
  // to give others a turn.
  void give_back(std::vector<Held> streams);
  // kSound: has not failed since it was last used. kLeftAlone: it has, a moment ago.
  enum class Health { kSound, kToBeTried, kLeftAlone };
  Health health(const std::string& node) const;
  // Lets go of idle streams whose other end has gone.
  void prune();
  // Ends waiting, now and from now on.
  void stop();

 private:
  static constexpr int64_t kFirstBackoffMs = 20;
  static constexpr int64_t kMaxBackoffMs = 1'000;
  // A node that is left alone for a while.
  struct Rest {
    Backoff backoff{kFirstBackoffMs, kMaxBackoffMs};
    int64_t until_ns = 0;
  };
  absl::StatusOr<std::shared_ptr<Stream>> connect(const std::string& node);
  void back_off(const std::string& node) SLUICE_REQUIRES(mutex_);
  void close_idle(size_t leave, std::vector<Held>* closed) SLUICE_REQUIRES(mutex_);

  Exchange& exchange_;
  const Options options_;
  mutable Mutex mutex_;
  Condition changed_;
  std::list<Held> idle_ SLUICE_GUARDED_BY(mutex_);  // the least recently used one first
  size_t in_use_ SLUICE_GUARDED_BY(mutex_) = 0;     // reserved
  bool stopping_ SLUICE_GUARDED_BY(mutex_) = false;
  std::map<std::string, Rest> rests_ SLUICE_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_DATAPLANE_PIPELINE_MERGE_STREAMS_H_
