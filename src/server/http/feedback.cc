// POST /v1/feedback: what came of a request that was answered.
#include "telemetry/outcomes/feedback.h"

#include <chrono>
#include <memory>
#include <string>

#include "net/channel.h"
#include "server/http/routes.h"
#include "telemetry/outcomes/outcomes.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;
using telemetry::Verdict;

ApiError refused(const Error& error) {
  const bool too_large = error.code == ErrorCode::kResourceExhausted;
  return {too_large ? ErrorKind::kPayloadTooLarge : ErrorKind::kInvalidFormat, error.message, "", ""};
}

std::optional<ApiError> error_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted:
    case Verdict::kDuplicate:
      return std::nullopt;
    case Verdict::kConflict:
      return ApiError{
          ErrorKind::kInvalidParameters,
          "request_id: expected what was said of this request before, found something else; the first counts.",
          "request_id", "feedback_conflict"};
    case Verdict::kUnknown:
    case Verdict::kLate:
      return ApiError{
          ErrorKind::kNotFound,
          "request_id: expected the X-Request-Id of an answer that is still remembered, found none or one that "
          "is too old.",
          "request_id", "request_not_found"};
    case Verdict::kForbidden:
      return ApiError{ErrorKind::kPermission,
                      "request_id: this id was chosen by its client, so feedback needs the same API key.", "request_id",
                      ""};
    case Verdict::kUnjudged:
      return ApiError{ErrorKind::kInvalidParameters,
                      "label: expected predicted beside it, since this answer carried no label.", "label", ""};
  }
  return std::nullopt;
}

// A client that is told its answer's last byte may be here before that request has noted its own end: that comes within
// moments. One that speaks of a stream which goes on is told after a while that nothing is known yet.
constexpr Duration kEndsWithin = std::chrono::seconds(2), kLook = std::chrono::milliseconds(1);

asio::awaitable<void> wait_for_end(Exchange& exchange, const std::string& id) {
  const auto timeline = exchange.server().timelines().with_id(id);
  if (!timeline || timeline->ended()) co_return;
  const TimePoint deadline = exchange.received() + kEndsWithin;
  const auto pause = std::make_shared<net::Signal>(exchange.writer().executor());  // nobody gives it
  while (!timeline->ended() && std::chrono::steady_clock::now() < deadline) {
    co_await pause->wait_until(std::chrono::steady_clock::now() + kLook);
  }
}

}  // namespace

asio::awaitable<void> feedback(Exchange& exchange) {
  telemetry::Outcomes* outcomes = exchange.server().options().outcomes;
  if (outcomes == nullptr) {
    ApiError error{ErrorKind::kNotFound, "Feedback is off here (telemetry.feedback).", "", ""};
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  const auto said = telemetry::parse_feedback(exchange.request().body);
  if (!said.ok()) {
    ApiError error = refused(said.error());
    co_await exchange.send_error(std::move(error));
    co_return;
  }
  co_await wait_for_end(exchange, said->request_id);
  const Verdict verdict = outcomes->apply(*said, caller_of(key_of(exchange.request())), unix_seconds());
  std::optional<ApiError> error = error_of(verdict);
  if (error) {
    co_await exchange.send_error(std::move(*error));
    co_return;
  }
  std::string body = "{\"object\":\"feedback\",\"status\":\"" + std::string(name_of(verdict)) + "\"}";
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
