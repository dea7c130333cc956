// Triton's extensions over HTTP: a model's configuration and statistics, and the model repository.
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <memory>
#include <utility>

#include "server/http/one_shot.h"
#include "server/http/routes.h"
#include "server/kserve/tensors.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using api::ApiError;
using api::ErrorKind;
using Sum = engine::OneShotStatistics::Sum;

json::array config_tensors(const std::vector<TensorSpec>& specs, bool inputs) {
  json::array out;
  for (const TensorSpec& spec : specs) {
    json::array dims;
    for (const int64_t side : spec.shape) dims.push_back(side);
    const std::string type(spec.datatype == api::Datatype::kBytes ? "STRING" : datatype_name(spec.datatype));
    json::object tensor{{"name", spec.name}, {"data_type", "TYPE_" + type}, {"dims", std::move(dims)}};
    if (inputs) tensor["optional"] = spec.optional;
    out.push_back(std::move(tensor));
  }
  return out;
}

uint64_t nanoseconds(double s) { return s > 0 ? static_cast<uint64_t>(s * 1e9) : 0; }

json::object duration(const Sum& sum) { return {{"count", sum.count}, {"ns", nanoseconds(sum.seconds)}}; }

// Of what happens inside compute_infer: perf_analyzer wants every stage counted as often.
json::object untimed(const Sum& sum) { return {{"count", sum.count}, {"ns", 0}}; }

json::object statistics_of(const ServedOneShot& model) {
  const engine::OneShotStatistics all = model.engine().statistics();
  const json::object none = duration({});
  json::array batches;
  for (const auto& [size, compute] : all.compute_by_size) {
    batches.push_back(json::object{{"batch_size", size},
                                   {"compute_input", untimed(compute)},
                                   {"compute_infer", duration(compute)},
                                   {"compute_output", untimed(compute)}});
  }
  return {{"name", model.name()},
          {"version", model.version()},
          {"last_inference", all.last_inference_ms},
          {"inference_count", all.inputs},
          {"execution_count", all.batches},
          {"inference_stats", json::object{{"success", duration(all.success)},
                                           {"fail", duration(all.failure)},
                                           {"queue", duration(all.queue)},
                                           {"compute_input", untimed(all.compute)},
                                           {"compute_infer", duration(all.compute)},
                                           {"compute_output", untimed(all.compute)},
                                           {"cache_hit", none},
                                           {"cache_miss", none}}},
          {"batch_stats", std::move(batches)}};
}

// What a load may not bring along: a configuration or files in the request, in the place of the model's own.
std::optional<ApiError> unexpected_parameters(const std::string& body) {
  if (body.find_first_not_of(" \t\r\n") == std::string::npos) return std::nullopt;
  auto object = api::parse_body(body);
  if (!object.ok()) return object.error();
  const json::value* parameters = object->if_contains("parameters");
  if (parameters == nullptr || parameters->is_null()) return std::nullopt;
  if (!parameters->is_object())
    return ApiError{ErrorKind::kInvalidFormat, "parameters: expected an object", "parameters", ""};
  if (parameters->get_object().empty()) return std::nullopt;
  return ApiError{ErrorKind::kUnsupported, loads_without_parameters(parameters->get_object().begin()->key()),
                  "parameters", ""};
}

// Loading and unloading block, so they happen elsewhere.
asio::awaitable<void> change(Exchange& exchange, bool load) {
  const std::string name = exchange.argument(0);
  auto status = std::make_shared<Status>();
  auto catalogue = exchange.server().catalogue();
  std::function<void()> work = [catalogue, name, load, status] {
    *status = load ? catalogue->load(name) : catalogue->unload(name);
  };
  co_await exchange.server().run_apart(std::move(work));
  if (status->ok()) {
    co_await exchange.send_json(200, "{}");
    co_return;
  }
  ApiError error = api::to_api_error(status->error());
  error.message =
      std::string(load ? "failed to load '" : "failed to unload '") + api::utf8_lossy(name) + "': " + error.message;
  co_await exchange.send_error(std::move(error));
}

}  // namespace

asio::awaitable<void> kserve_config(Exchange& exchange) {
  std::string version = exchange.arguments() > 1 ? exchange.argument(1) : "";
  OneShotPtr model = co_await find_one_shot(exchange, exchange.argument(0), std::move(version), {});
  if (!model) co_return;
  const ModelTensors tensors = tensors_of(*model);
  std::string body = json::serialize(
      json::object{{"name", model->name()},
                   {"platform", platform_of(*model)},
                   {"backend", kServerName},
                   {"max_batch_size", model->engine().model().batch_inputs_max()},
                   {"input", config_tensors(tensors.inputs, true)},
                   {"output", config_tensors(tensors.outputs, false)},
                   {"dynamic_batching", json::object{{"priority_levels", 3}, {"default_priority_level", 2}}},
                   {"model_transaction_policy", json::object{{"decoupled", false}}}});
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> kserve_statistics(Exchange& exchange) {
  json::array list;
  if (exchange.arguments() == 0) {
    for (const OneShotPtr& model : exchange.server().catalogue()->ready()) list.push_back(statistics_of(*model));
  } else {
    std::string version = exchange.arguments() > 1 ? exchange.argument(1) : "";
    OneShotPtr model = co_await find_one_shot(exchange, exchange.argument(0), std::move(version), {});
    if (!model) co_return;
    list.push_back(statistics_of(*model));
  }
  std::string body = json::serialize(json::object{{"model_stats", std::move(list)}});
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> kserve_index(Exchange& exchange) {
  bool only_ready = false;
  if (exchange.request().body.find_first_not_of(" \t\r\n") != std::string::npos) {
    auto object = api::parse_body(exchange.request().body);
    std::optional<ApiError> failure;
    if (!object.ok()) {
      failure = object.error();
    } else {
      api::FieldReader(*object, "", failure).boolean("ready", only_ready);
    }
    if (failure) {
      co_await exchange.send_error(std::move(*failure));
      co_return;
    }
  }
  json::array list;
  for (const CatalogueEntry& entry : exchange.server().catalogue()->index()) {
    if (only_ready && entry.state != "READY") continue;
    list.push_back(json::object{
        {"name", entry.name}, {"version", entry.version}, {"state", entry.state}, {"reason", entry.reason}});
  }
  std::string body = json::serialize(list);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> kserve_load(Exchange& exchange) {
  std::optional<ApiError> unexpected = unexpected_parameters(exchange.request().body);
  if (unexpected) {
    co_await exchange.send_error(std::move(*unexpected));
    co_return;
  }
  co_await change(exchange, true);
}

asio::awaitable<void> kserve_unload(Exchange& exchange) { return change(exchange, false); }

// No region of shared memory can be registered, so there is none to tell of and none to take back.
asio::awaitable<void> kserve_no_regions(Exchange& exchange) { co_await exchange.send_json(200, "[]"); }
asio::awaitable<void> kserve_forget_regions(Exchange& exchange) { co_await exchange.send_json(200, "{}"); }

}  // namespace spillway::server
