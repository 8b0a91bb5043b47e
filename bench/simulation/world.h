// What a plan comes to: streams of slots between nodes that are as fast as they really are, on
// virtual time.
//
// Time goes in steps. At each step's begin all streams that run get rates, max-min fair: what a
// node sends, and what a target receives, is shared evenly, and what a stream cannot use, because
// its other end is slower, the others get. Within a step streams go on at their rates, slot after
// slot. A source sends to at most 16 targets at a time, a target hears at most 16 sources, as real
// ones do. A slot is durable when its last sender has delivered it.
//
// When a new plan comes, each node follows it from a time of its own. A stream runs while both its
// ends follow its plan. Slots on their way are given up with their stream; durable ones stay where
// the new plan has them at the same target, and are given up elsewhere.
//
// Simplifications: a node is one rate for sending and one for receiving, disk and link together;
// a divergent slot is all its replicas' bytes; acknowledgements take no time. Deterministic.
// Confined to one thread.
#ifndef SLUICE_BENCH_SIMULATION_WORLD_H_
#define SLUICE_BENCH_SIMULATION_WORLD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "control/schedule/planner.h"

namespace sluice {

struct TrueRate {
  double send = 1;  // bytes a second, > 0
  double receive = 1;
};

class World {
 public:
  // All nodes follow the plan from the beginning, which is at 0 s.
  World(Plan plan, std::vector<TrueRate> rates, double step_s);

  double now() const { return now_; }
  const Plan& plan() const { return now_followed_.plan; }
  // One step.
  void advance();
  // It neither sends nor receives any more, and what it has is lost.
  void kill(uint32_t node);
  // The slots are those of the plan so far. from[n]: when node n follows it.
  void follow(Plan plan, std::vector<double> from);

  // Every slot is durable at its target.
  bool is_finished() const;
  // Slots that not exactly one target has, the plan's.
  uint32_t lost() const;
  // By index in plan().slots: durable at its target.
  std::vector<uint8_t> done() const;

  struct Counts {
    uint64_t sent_bytes = 0;
    // Of these, in vain: on their way when a stream ended, or with a node that died; and durable
    // where the new plan does not have them.
    uint64_t given_up_bytes = 0;
    uint64_t given_up_durable_bytes = 0;
    uint64_t lost_with_targets_bytes = 0;
    size_t most_streams = 0;  // of one node at a time
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Stream {
    uint32_t source = 0;
    uint32_t target = 0;
    std::vector<uint32_t> slots;  // indexes into the plan's
    size_t next = 0;
    double moved = 0;  // of the slot at `next`
    double rate = 0;
    double share = 0;  // while rates are shared
    bool frozen = false;
    bool ended = false;   // it has nothing to send any more
    bool closed = false;  // and what was in vain is counted
  };
  struct Followed {
    Plan plan;
    uint64_t number = 0;
    std::vector<Stream> streams;                   // source after source
    std::vector<std::vector<uint32_t>> delivered;  // by slot: senders that are through
  };

  static void add_streams(Followed& followed, const std::vector<uint8_t>& done);
  void switch_nodes();
  bool is_held(uint32_t slot, uint32_t target) const;
  std::vector<Stream*> running();
  bool runs(const Followed& followed, const Stream& stream) const;
  void share_rates(const std::vector<Stream*>& streams);
  void move(Followed& followed, Stream& stream);
  void deliver(Followed& followed, const Stream& stream, uint32_t slot);
  void end(Followed& followed, Stream& stream);
  uint64_t bytes_of(const Plan& plan, uint32_t slot, uint32_t node) const;

  const std::vector<TrueRate> rates_;
  const double step_s_;
  double now_ = 0;
  Followed now_followed_;
  Followed before_;  // by nodes that have not switched yet
  std::vector<double> from_;
  std::vector<uint64_t> follows_;  // by node: number of its plan
  std::vector<uint8_t> is_alive_;
  std::vector<std::vector<uint32_t>> holders_;  // by slot: targets that have it durably
  Counts counts_;
};

}  // namespace sluice

#endif  // SLUICE_BENCH_SIMULATION_WORLD_H_
