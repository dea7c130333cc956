// RpcAccount: the RequestAccount of one generation or inference over gRPC: the same spans, timelines, outcomes and
// objectives as over HTTP. Owned by the call; touched by one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/grpc/rpc.h"

namespace spillway::server {

// A method of ours, as it is named in records and metrics.
struct RpcMethod {
  const char* path;       // "/spillway.v1.Chat/Complete"
  const char* operation;  // OpenTelemetry's: "chat", "infer"
  const char* name;       // in the metrics of gRPC
};
constexpr RpcMethod kInfer{"/inference.GRPCInferenceService/ModelInfer", "infer", "ModelInfer"};
constexpr RpcMethod kStreamInfer{"/inference.GRPCInferenceService/ModelStreamInfer", "infer", "ModelStreamInfer"};
constexpr RpcMethod kChatComplete{"/spillway.v1.Chat/Complete", "chat", "Chat.Complete"};
constexpr RpcMethod kChatStream{"/spillway.v1.Chat/Stream", "chat", "Chat.Stream"};

class RpcAccount {
 public:
  // A call of its own; its id goes back as the metadata "x-request-id".
  RpcAccount(Server& server, grpc::CallbackServerContext& context, const RpcMethod& method, size_t bytes);
  // One message of a stream, which has the stream's id and its own number: "ID-1", "ID-2", ...
  RpcAccount(Server& server, RequestOrigin origin, uint64_t number, const RpcMethod& method, size_t bytes);

  RequestAccount& request() { return request_; }
  void end(const RpcEnd& end);

 private:
  void begin(size_t bytes);

  const RpcMethod& method_;
  const bool counts_call_;  // the stream counts itself
  RequestAccount request_;
  int64_t traced_ = 0;
};

}  // namespace spillway::server
