// What every gRPC connection of the program has, to whatever service.
#ifndef SLUICE_CONTROL_PROTO_CHANNELS_H_
#define SLUICE_CONTROL_PROTO_CHANNELS_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>

namespace sluice {

// Keeps gRPC from shutting down before the process ends. Called before a process's first channel or
// server.
void keep_grpc();

// Of a channel of its own connection that finds a peer again soon after it was restarted. Limits of
// messages and keepalives are for the caller to add.
grpc::ChannelArguments channel_arguments();

void set_timeout(grpc::ClientContext& context, int64_t timeout_ms);

}  // namespace sluice

#endif  // SLUICE_CONTROL_PROTO_CHANNELS_H_
