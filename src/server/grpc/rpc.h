// What every call over gRPC needs: keys, deadlines, and failures as statuses, from the one error table.
#pragma once

#include <grpcpp/grpcpp.h>

#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <optional>

#include "api/errors.h"
#include "base/clock.h"
#include "server/completion.h"
#include "server/server.h"

namespace spillway::server {

grpc::Status status_of(const api::ApiError& error);
// With google.rpc.RetryInfo where coming back later helps.
grpc::Status status_of(const Refused& refused);

// Whether the call's metadata has a key, where the server asks for one: "authorization: Bearer KEY" or "x-api-key".
std::optional<grpc::Status> check_key(const Server& server, const grpc::CallbackServerContext& context);

// Loading or draining.
std::optional<grpc::Status> check_state(Server& server);

TimePoint deadline_of(const grpc::CallbackServerContext& context);

// What the services share. Lives longer than every call.
struct RpcShared {
  Server& server;
  boost::asio::thread_pool& workers;  // finish answers: short jobs
  boost::asio::thread_pool& aside;    // tokenise, decode images, plan chats
  boost::asio::thread_pool& apart;    // load and unload models: seconds
};

// Counts a call: by method and code, and its time.
void count_call(const char* method, const grpc::Status& status, TimePoint begun);

}  // namespace spillway::server
