// How large a node's arena has to be. Pure.
#ifndef SLUICE_CONTROL_NODE_ARENA_BUDGET_H_
#define SLUICE_CONTROL_NODE_ARENA_BUDGET_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "base/arena.h"
#include "base/status.h"
#include "dataplane/pipeline/consolidation.h"
#include "dataplane/pipeline/merge_source.h"
#include "dataplane/pipeline/request_client.h"
#include "dataplane/pipeline/send_to_targets.h"
#include "dataplane/pipeline/write_server.h"
#include "dataplane/stream/exchange.h"

namespace sluice {

// Buffers without which a backup of `nodes` nodes cannot go on, each of them source and target for
// all, with replicas that differ: a node has streams to and from so many at a time that it does not
// grow with the cluster beyond that. Restores and writes have what is left, and wait for more; so
// do further streams of merges, which are refused politely without buffers.
inline size_t backup_buffers(size_t nodes) {
  const Exchange::Options exchange;
  const ConsolidationOptions target;
  const SendToTargetsOptions source;
  const MergeSourceOptions merge_source;
  constexpr size_t kAcknowledgements = 1;  // a block for the stream to a target
  constexpr size_t kRequests = 1;          // a block for each merge's stream from a target
  const size_t sources = std::min(nodes, target.agreed_streams);
  const size_t targets = std::min(nodes, source.targets_at_a_time);
  const size_t merges_served = std::min(nodes, merge_source.max_streams);
  const size_t merge_streams = std::min(nodes, target.merge_streams);
  return exchange.hello_buffers + exchange.own_buffers + exchange.control_buffers +  //
         sources * target.agreed_receive_blocks +                                    // in
         targets * (source.each.agreed_buffers + kAcknowledgements) +                // out
         SendCopiesOptions::kLocalBuffers - source.each.agreed_buffers +             // to itself
         merges_served * (merge_source.send_buffers + kRequests) +  // summaries and records, out
         merge_streams * target.merge_receive_blocks +              // the same, in
         target.merge_buffers;                                      // merged
}

// The smallest arena_bytes of a node in a cluster of `nodes` nodes: whole MiB.
inline uint64_t smallest_arena_bytes(size_t nodes) {
  constexpr uint64_t kMib = uint64_t{1} << 20;
  const uint64_t bytes = uint64_t{backup_buffers(nodes)} * kBufferBytes;
  return (bytes + kMib - 1) / kMib * kMib;
}

// What a node of a cluster of `nodes` nodes works well with: a backup, and besides it writes that
// come from and go to all of them, up to the number of streams that a node keeps for that.
inline uint64_t recommended_arena_bytes(size_t nodes) {
  const WriteServer::Options writes;
  const RequestClient::Options requests;
  constexpr size_t kClients = 8;
  const size_t peers = std::min(nodes, requests.streams);
  const size_t buffers = peers * (writes.forward_receive_blocks + requests.receive_blocks) +
                         kClients * writes.write_receive_blocks;
  return smallest_arena_bytes(nodes) + uint64_t{buffers} * kBufferBytes;
}

// INVALID_ARGUMENT, with the number that would do, for an arena that backups cannot work with.
inline absl::Status check_arena(uint64_t arena_bytes, size_t nodes) {
  const uint64_t needed = smallest_arena_bytes(nodes);
  if (arena_bytes >= needed) return absl::OkStatus();
  return invalid_argument(
      "arena_bytes {} is too small for a cluster of {} nodes: backups need at least {}; set "
      "arena_bytes = {} or more",
      arena_bytes, nodes, needed, needed);
}

}  // namespace sluice

#endif  // SLUICE_CONTROL_NODE_ARENA_BUDGET_H_
