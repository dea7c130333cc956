#include "server/grpc/rpc.h"

#include <cmath>
#include <string>

#include "metrics/metrics.h"
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

}  // namespace

grpc::Status status_of(const api::ApiError& error) {
  return {static_cast<grpc::StatusCode>(api::error_row(error.kind).grpc_code), bounded(error.message)};
}

grpc::Status status_of(const Refused& refused) {
  const grpc::Status plain = status_of(refused.error);
  if (refused.retry_after_s <= 0) return plain;
  spillway::v1::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(static_cast<int64_t>(std::ceil(refused.retry_after_s)));
  spillway::v1::Status details;
  details.set_code(plain.error_code());
  details.set_message(plain.error_message());
  google::protobuf::Any* any = details.add_details();
  any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  any->set_value(retry.SerializeAsString());
  return {plain.error_code(), plain.error_message(), details.SerializeAsString()};
}

std::optional<grpc::Status> check_key(const Server& server, const grpc::CallbackServerContext& context) {
  const std::shared_ptr<const HotOptions> hot = server.hot();
  if (!hot->keys.required()) return std::nullopt;
  std::string_view key = metadata(context, "x-api-key");
  if (key.empty()) key = bearer_key(metadata(context, "authorization")).value_or("");
  if (hot->keys.find(key)) return std::nullopt;
  return status_of(api::ApiError{api::ErrorKind::kAuthentication,
                                 key.empty() ? "no API key was given; send it as authorization: Bearer or x-api-key"
                                             : "the API key " + masked_key(key) + " is invalid",
                                 "", ""});
}

std::optional<grpc::Status> check_state(Server& server) {
  if (server.state() == ServerState::kReady) return std::nullopt;
  const auto refused = refused_now(server);
  if (refused) return status_of(*refused);
  return std::nullopt;
}

TimePoint deadline_of(const grpc::CallbackServerContext& context) {
  const auto wall = context.deadline();
  const auto left = wall - std::chrono::system_clock::now();
  if (left > std::chrono::hours(24 * 365)) return TimePoint::max();
  return std::chrono::steady_clock::now() + std::chrono::duration_cast<Duration>(left);
}

void count_call(const char* method, const grpc::Status& status, TimePoint begun) {
  calls_total.with({method, std::to_string(status.error_code())}).add();
  call_seconds.with({method}).observe(seconds(std::chrono::steady_clock::now() - begun));
}

}  // namespace spillway::server
