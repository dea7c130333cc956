#include "server/http/one_shot.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "metrics/metrics.h"
#include "net/channel.h"
#include "server/http/aside.h"
#include "server/http/generate.h"
#include "server/one_shot/one_shot_call.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter disconnects_total("spillway_one_shot_disconnects_total",
                                   "Clients that left before a one-shot answer was complete.");

// Deadline and priority of the request and its headers.
std::optional<ApiError> apply(const Exchange& exchange, const api::EncodeCommon& common, OneShotRequests& requests) {
  const api::Parsed<TimePoint> deadline = exchange.deadline(common.deadline_ms);
  if (!deadline.ok()) return deadline.error();
  const auto priority = exchange.priority(static_cast<engine::Priority>(common.priority));
  if (!priority.ok()) return priority.error();
  for (engine::OneShotRequest& request : requests) {
    request.deadline = *deadline;
    request.priority = *priority;
  }
  return std::nullopt;
}

}  // namespace

asio::awaitable<bool> takes_requests(Exchange& exchange) {
  const ServerState state = exchange.server().state();
  if (state == ServerState::kReady) co_return true;
  auto refused = refused_now(exchange.server());
  if (refused) co_await refuse(exchange, std::move(*refused));
  co_return false;
}

asio::awaitable<std::optional<OneShotOutputs>> run_one_shot(Exchange& exchange, OneShotPtr model, MakeRequests make,
                                                            const api::EncodeCommon* common) {
  exchange.account().set_model(model->name(), model->version());
  InFlight in_flight(exchange.server());
  if (!in_flight) {
    auto refused = refused_now(exchange.server());
    if (refused) co_await refuse(exchange, std::move(*refused));
    co_return std::nullopt;
  }
  std::optional<api::Parsed<OneShotRequests>> made;
  made.emplace(co_await make_here_or_aside<api::Parsed<OneShotRequests>>(exchange, std::move(make)));
  std::optional<ApiError> error;
  if (!made->ok()) error = made->error();
  if (!error && common != nullptr) error = apply(exchange, *common, **made);
  if (error) {
    co_await exchange.send_error(std::move(*error));
    co_return std::nullopt;
  }
  OneShotOutputs out;
  exchange.record().prompt_tokens = out.tokens = token_count(**made);
  for (engine::OneShotRequest& each : **made) each.timeline = exchange.request().timeline;
  auto signal = std::make_shared<net::Signal>(exchange.writer().executor());
  const TimePoint submitted = std::chrono::steady_clock::now();
  auto started = OneShotCall::start(std::move(model), std::move(**made), [signal](OneShotCall&) { signal->notify(); });
  if (auto* refused = std::get_if<Refused>(&started)) {
    co_await refuse(exchange, std::move(*refused));
    co_return std::nullopt;
  }
  auto call = std::get<std::shared_ptr<OneShotCall>>(std::move(started));
  exchange.writer().on_disconnect([call] { call->cancel(); });
  while (!call->finished()) co_await signal->wait_until(TimePoint::max());
  if (exchange.request().timeline) note_passage(*exchange.request().timeline, *call, submitted);
  auto values = call->take();
  if (!values.ok()) {
    if (exchange.writer().disconnected()) disconnects_total->add();
    ApiError failure = values.error();
    co_await exchange.send_error(std::move(failure));
    co_return std::nullopt;
  }
  out.values = std::move(*values);
  co_return out;
}

}  // namespace spillway::server
