#include "server/grpc/rpc.h"

#include <cmath>
#include <string>

#include "metrics/metrics.h"
#include "net/request_id.h"
#include "server/http/generate.h"
#include "spillway/v1/status.pb.h"

namespace spillway::server {
namespace {

metrics::Counter calls_total("spillway_grpc_calls_total", "gRPC calls by method and status code.", {"method", "code"});
metrics::Histogram call_seconds("spillway_grpc_call_seconds", "Time from a gRPC call to its status.",
                                {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60},
                                {"method"});

// A status' message travels in a header: gRPC percent-encodes it, and proxies bound it.
constexpr size_t kMessageMax = 2048;

std::string bounded(std::string message) {
  if (message.size() > kMessageMax) message.resize(kMessageMax);
  return api::utf8_lossy(message);
}

std::string_view metadata(const grpc::CallbackServerContext& context, const char* name) {
  const auto& all = context.client_metadata();
  const auto found = all.find(name);
  return found == all.end() ? std::string_view() : std::string_view(found->second.data(), found->second.size());
}

std::string_view key_of(const grpc::CallbackServerContext& context) {
  const std::string_view key = metadata(context, "x-api-key");
  return key.empty() ? bearer_key(metadata(context, "authorization")).value_or("") : key;
}

}  // namespace

grpc::Status status_of(const api::ApiError& error) {
  return {static_cast<grpc::StatusCode>(api::error_row(error.kind).grpc_code), bounded(error.message)};
}

RpcEnd end_of(const api::ApiError& error) {
  return {status_of(error), error.http_status(), api::error_row(error.kind).label};
}

RpcEnd end_of(const Refused& refused) {
  RpcEnd end = end_of(refused.error);
  if (refused.retry_after_s <= 0) return end;
  spillway::v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(static_cast<int64_t>(std::ceil(refused.retry_after_s)));
  spillway::v1::Status details;
  details.set_code(end.status.error_code());
  details.set_message(end.status.error_message());
  google::protobuf::Any* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(retry.SerializeAsString());
  end.status = {end.status.error_code(), end.status.error_message(), details.SerializeAsString()};
  return end;
}

std::optional<RpcEnd> check_key(const Server& server, const grpc::CallbackServerContext& context) {
  const std::shared_ptr<const HotOptions> hot = server.hot();
  if (!hot->keys.required()) return std::nullopt;
  const std::string_view key = key_of(context);
  if (hot->keys.find(key)) return std::nullopt;
  return end_of(api::ApiError{api::ErrorKind::kAuthentication,
                              key.empty() ? "no API key was given; send it as authorization: Bearer or x-api-key"
                                          : "the API key " + masked_key(key) + " is invalid",
                              "", ""});
}

api::ApiError stopping() { return {api::ErrorKind::kOverloaded, "the server is shutting down", "", ""}; }

std::optional<RpcEnd> check_state(Server& server) {
  if (server.state() == ServerState::kReady) return std::nullopt;
  const auto refused = refused_now(server);
  if (refused) return end_of(*refused);
  return std::nullopt;
}

RequestOrigin origin_of(const grpc::CallbackServerContext& context) {
  RequestOrigin origin;
  const std::string_view given = metadata(context, "x-request-id");
  origin.id = net::request_id(given);
  origin.id_is_ours = given != origin.id;
  origin.traceparent = metadata(context, "traceparent");
  origin.arm = metadata(context, "x-experiment-arm");
  origin.key = key_of(context);
  origin.protocol = telemetry::RequestRecord::Protocol::kGrpc;
  return origin;
}

TimePoint deadline_of(const grpc::CallbackServerContext& context) {
  const auto wall = context.deadline();
  const auto left = wall - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 365)) return TimePoint::max();
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<Duration>(left);
}

void count_call(const char* method, const grpc::Status& status, TimePoint begun, std::string_view trace_id) {
  calls_total.with({method, std::to_string(status.error_code())}).add();
  call_seconds.with({method}).observe(seconds(std::chrono::steady_clock::now() - begun), trace_id);
}

}  // namespace spillway::server
