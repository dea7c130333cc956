#include "server/http/find_model.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "net/channel.h"
#include "server/http/generate.h"
#include "server/one_shot/tasks.h"
#include "server/server.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

// Waits for a model that may have to be brought back; acquire calls what it is given once.
template <class Ptr>
asio::awaitable<Result<Ptr>> await_model(Exchange& exchange,
                                         std::function<void(std::function<void(Result<Ptr>)>)> acquire) {
  InFlight in_flight(exchange.server());
  auto signal = std::make_shared<net::Signal>(exchange.writer().executor());
  auto result = std::make_shared<std::optional<Result<Ptr>>>();
  acquire([signal, result](Result<Ptr> found) {
    result->emplace(std::move(found));
    signal->notify();
  });
  while (!co_await signal->wait_until(TimePoint::max())) continue;
  co_return std::move(**result);
}

asio::awaitable<Result<OneShotPtr>> await_one_shot(Exchange& exchange, std::string name, std::string version) {
  const api::Parsed<TimePoint> deadline = exchange.deadline(std::nullopt);
  if (!deadline.ok()) co_return api::to_error(deadline.error());
  std::function<void(ModelCatalogue::Found)> acquire = [&, catalogue = exchange.server().catalogue()](auto done) {
    catalogue->acquire(name, version, *deadline, std::move(done));
  };
  co_return co_await await_model<OneShotPtr>(exchange, std::move(acquire));
}

bool offers_any(const ServedOneShot& model, const std::vector<models::OneShotOutput>& outputs) {
  return outputs.empty() || std::ranges::any_of(outputs, [&](auto output) { return model.offers(output); });
}

bool takes(const ServedOneShot& model, InputKind inputs) {
  if (inputs == InputKind::kAny) return true;
  return inputs == InputKind::kText ? model.text() != nullptr : model.images() != nullptr;
}

// Of those that are ready, else of the evicted, the first that takes such inputs and gives one of the outputs.
asio::awaitable<OneShotPtr> first_that_offers(Exchange& exchange, const std::vector<models::OneShotOutput>& outputs,
                                              InputKind inputs) {
  const auto catalogue = exchange.server().catalogue();
  for (const OneShotPtr& model : catalogue->ready()) {
    if (takes(*model, inputs) && offers_any(*model, outputs)) co_return model;
  }
  const std::vector<ListedModel> listed = catalogue->listed();
  for (const ListedModel& one : listed) {
    if (one.kind != ModelKind::kOneShot || catalogue->is_ready(one.name, "")) continue;
    Result<OneShotPtr> found = co_await await_one_shot(exchange, one.name, "");
    if (found.ok() && takes(**found, inputs) && offers_any(**found, outputs)) co_return std::move(found).value();
  }
  co_return nullptr;
}

}  // namespace

Refused not_ready(const ModelCatalogue& catalogue, std::string_view name, const Error& why) {
  const double load_s = std::max(1.0, catalogue.load_seconds(name));
  return {{ErrorKind::kOverloaded, why.message, "model", "model_not_ready"}, load_s, load_s, "model_not_ready"};
}

std::string default_language(const ModelCatalogue& catalogue) {
  for (const ListedModel& model : catalogue.listed()) {
    if (model.kind == ModelKind::kLanguage) return model.name;
  }
  return {};
}

asio::awaitable<LanguagePtr> find_language(Exchange& exchange, std::string name, std::optional<int64_t> deadline_ms) {
  const auto catalogue = exchange.server().catalogue();
  if (LanguagePtr model = catalogue->find_language(name)) co_return model;
  const api::Parsed<TimePoint> deadline = exchange.deadline(deadline_ms);
  if (!deadline.ok()) {
    co_await exchange.send_error(deadline.error());
    co_return nullptr;
  }
  std::function<void(ModelCatalogue::LanguageFound)> acquire = [&](auto done) {
    catalogue->acquire_language(name, *deadline, std::move(done));
  };
  Result<LanguagePtr> found = co_await await_model<LanguagePtr>(exchange, std::move(acquire));
  if (found.ok()) co_return std::move(found).value();
  if (found.error().code == ErrorCode::kNotFound) {
    ApiError error = catalogue->kind(name) == ModelKind::kOneShot
                         ? ApiError{ErrorKind::kUnsupported, "The model " + name + " generates no text.", "model",
                                    "model_not_suitable"}
                         : model_not_found(name);
    co_await exchange.send_error(std::move(error));
    co_return nullptr;
  }
  Refused refused = not_ready(*catalogue, name, found.error());
  co_await refuse(exchange, std::move(refused));
  co_return nullptr;
}

asio::awaitable<OneShotPtr> find_one_shot(Exchange& exchange, std::string name, std::string version,
                                          std::vector<models::OneShotOutput> outputs, InputKind inputs) {
  const auto catalogue = exchange.server().catalogue();
  if (name.empty()) {
    OneShotPtr model = co_await first_that_offers(exchange, outputs, inputs);
    if (model) co_return model;
    ApiError none{ErrorKind::kNotFound, "No model here can do that.", "model", "model_not_found"};
    co_await exchange.send_error(std::move(none));
    co_return nullptr;
  }
  OneShotPtr model = catalogue->find(name, version);
  if (!model) {
    Result<OneShotPtr> found = co_await await_one_shot(exchange, name, version);
    if (!found.ok() && found.error().code == ErrorCode::kNotFound) {
      const bool language = catalogue->kind(name) == ModelKind::kLanguage;
      ApiError error = language ? ApiError{ErrorKind::kUnsupported, "The model " + name + " is a language model.",
                                           "model", "model_not_suitable"}
                                : model_not_found(name);
      if (!language && !version.empty() && catalogue->is_ready(name, ""))
        error.message = "The model `" + api::utf8_lossy(name) + "` has no version `" + api::utf8_lossy(version) + "`.";
      co_await exchange.send_error(std::move(error));
      co_return nullptr;
    }
    if (!found.ok()) {
      Refused refused = not_ready(*catalogue, name, found.error());
      co_await refuse(exchange, std::move(refused));
      co_return nullptr;
    }
    model = std::move(found).value();
  }
  if (!offers_any(*model, outputs)) {
    auto error = lacks(*model, outputs.front());
    co_await exchange.send_error(std::move(*error));
    co_return nullptr;
  }
  co_return model;
}

}  // namespace spillway::server
