#include "server/grpc/rpc_account.h"

#include <utility>

#include "base/trace.h"

namespace spillway::server {
namespace {

RequestOrigin numbered(RequestOrigin origin, uint64_t number) {
  origin.id += "-" + std::to_string(number);
  return origin;
}

}  // namespace

RpcAccount::RpcAccount(Server& server, grpc::CallbackServerContext& context, const RpcMethod& method, size_t bytes)
    : method_(method), counts_call_(true), request_(server, origin_of(context)) {
  context.AddInitialMetadata("x-request-id", request_.record().id);
  begin(bytes);
}

RpcAccount::RpcAccount(Server& server, RequestOrigin origin, uint64_t number, const RpcMethod& method, size_t bytes)
    : method_(method), counts_call_(false), request_(server, numbered(std::move(origin), number)) {
  begin(bytes);
}

void RpcAccount::begin(size_t bytes) {
  request_.begin_timeline(method_.path, static_cast<int64_t>(bytes));
  traced_ = trace::begin_async();
}

void RpcAccount::end(const RpcEnd& end) {
  const grpc::StatusCode code = end.status.error_code();
  request_.record().grpc_code = code;
  trace::end_async("grpc", method_.name, reinterpret_cast<uintptr_t>(this), traced_, "code", code);
  if (counts_call_) count_call(method_.name, end.status, request_.received(), request_.trace_id());
  request_.end(method_.path, method_.operation, end.http_status, end.outcome);
}

}  // namespace spillway::server
