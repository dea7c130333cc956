#include "server/http/one_shot.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "metrics/metrics.h"
#include "net/channel.h"
#include "server/http/generate.h"
#include "server/one_shot/one_shot_call.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter disconnects_total("spillway_one_shot_disconnects_total",
                                   "Clients that left before a one-shot answer was complete.");

// A body over this takes long enough to tokenise or decode that other connections would feel it.
constexpr size_t kAsideBytes = 16 << 10;

bool offers_any(const ServedOneShot& model, const std::vector<models::OneShotOutput>& outputs) {
  return outputs.empty() || std::ranges::any_of(outputs, [&](auto output) { return model.offers(output); });
}

// Waits for a model that may have to be brought back.
asio::awaitable<Result<OneShotPtr>> acquire(Exchange& exchange, std::string name, std::string version) {
  auto signal = std::make_shared<net::Signal>(exchange.writer().executor());
  auto result = std::make_shared<std::optional<Result<OneShotPtr>>>();
  exchange.server().catalogue()->acquire(name, version, [signal, result](Result<OneShotPtr> found) {
    result->emplace(std::move(found));
    signal->notify();
  });
  while (!co_await signal->wait_until(TimePoint::max())) continue;
  co_return std::move(**result);
}

asio::awaitable<api::Parsed<OneShotRequests>> make_aside(Exchange& exchange, MakeRequests make) {
  // The job may outlive this frame when the server stops, so what it writes to is shared.
  auto result = std::make_shared<std::optional<api::Parsed<OneShotRequests>>>();
  std::function<void()> work = [result, make = std::move(make)] { result->emplace(make()); };
  co_await exchange.server().run_aside(std::move(work));
  co_return std::move(**result);
}

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

asio::awaitable<OneShotPtr> find_one_shot(Exchange& exchange, std::string name, std::string version,
                                          std::vector<models::OneShotOutput> outputs) {
  const auto catalogue = exchange.server().catalogue();
  if (name.empty()) {
    for (const OneShotPtr& model : catalogue->ready()) {
      if (offers_any(*model, outputs)) co_return model;
    }
    ApiError none{ErrorKind::kNotFound, "No model here can do that.", "model", "model_not_found"};
    co_await exchange.send_error(std::move(none));
    co_return nullptr;
  }
  OneShotPtr model = catalogue->find(name, version);
  if (!model) {
    Result<OneShotPtr> found = co_await acquire(exchange, name, version);
    if (found.ok()) {
      model = std::move(found).value();
    } else {
      ApiError error = api::to_api_error(found.error());
      if (error.kind == ErrorKind::kNotFound) {
        const bool language = exchange.server().find_model(name) != nullptr;
        error = language ? ApiError{ErrorKind::kUnsupported, "The model " + name + " is a language model.", "model",
                                    "model_not_suitable"}
                         : model_not_found(name);
      }
      co_await exchange.send_error(std::move(error));
      co_return nullptr;
    }
  }
  if (!offers_any(*model, outputs)) {
    auto error = lacks(*model, outputs.front());
    co_await exchange.send_error(std::move(*error));
    co_return nullptr;
  }
  co_return model;
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
  if (exchange.request().body.size() > kAsideBytes) {
    made.emplace(co_await make_aside(exchange, std::move(make)));
  } else {
    made.emplace(make());
  }
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
