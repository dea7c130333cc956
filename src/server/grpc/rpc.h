// What every call over gRPC needs: keys, deadlines, and failures as statuses, from the one error table.
#pragma once

#include <grpcpp/grpcpp.h>

#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <optional>
#include <string_view>

#include "api/errors.h"
#include "base/clock.h"
#include "server/completion.h"
#include "server/request_account.h"
#include "server/server.h"

namespace spillway::server {

grpc::Status status_of(const api::ApiError& error);

// How a call ended: its status, and what the same end is called where both protocols are recorded.
struct RpcEnd {
  grpc::Status status;
  int http_status = 200;
  const char* outcome = "ok";
};
RpcEnd end_of(const api::ApiError& error);
// With google.rpc.RetryInfo where coming back later helps.
RpcEnd end_of(const Refused& refused);

// Whether the call's metadata has a key, where the server asks for one: "authorization: Bearer KEY" or "x-api-key".
std::optional<RpcEnd> check_key(const Server& server, const grpc::CallbackServerContext& context);

// What is told to a call that comes too late.
api::ApiError stopping();

// Loading or draining.
std::optional<RpcEnd> check_state(Server& server);

TimePoint deadline_of(const grpc::CallbackServerContext& context);

// What the services share. Lives longer than every call.
struct RpcShared {
  Server& server;
  boost::asio::thread_pool& workers;  // finish answers: short jobs
  boost::asio::thread_pool& aside;    // tokenise, decode images, plan chats
  boost::asio::thread_pool& apart;    // load and unload models: seconds
};

// Counts a call: by method and code, and its time.
void count_call(const char* method, const grpc::Status& status, TimePoint begun, std::string_view trace_id = {});

// What a call is to the records: its metadata, as an HTTP request's headers. The views are the context's.
RequestOrigin origin_of(const grpc::CallbackServerContext& context);

}  // namespace spillway::server
