// TensorFlow Serving: POST /v1/models/NAME[/versions/V]:predict, the status and metadata of a model. (The status
// without a version shares its path with OpenAI's /v1/models/NAME, see models.cc.)
#include "api/tf_serving.h"

#include <fmt/format.h>

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

api::Parsed<engine::OneShotRequest> request_of(const ServedOneShot& model, const api::TfInput& input) {
  const models::OneShotInfo& info = model.info();
  engine::OneShotRequest out;
  out.output = info.outputs.front();
  const bool textual = input.index() < 2;
  if (textual == info.vision) {
    return ApiError{ErrorKind::kInvalidFormat,
                    info.vision ? "instances: expected images, found text" : "instances: expected texts, found pixels",
                    "instances", ""};
  }
  if (textual) {
    const auto* given = std::get_if<api::TfIds>(&input);
    const api::TextOrIds text = given ? api::TextOrIds(given->ids) : api::TextOrIds(std::get<std::string>(input));
    auto encoding = model.text()->any(text, "", {});
    if (!encoding.ok()) return encoding.error();
    out.tokens = std::move(encoding->ids);
    out.types = given && !given->types.empty() ? given->types : std::move(encoding->type_ids);
    return out;
  }
  if (const auto* file = std::get_if<api::TfImage>(&input)) {
    auto pixels = model.images()->pixels(file->file);
    if (!pixels.ok()) return ApiError{ErrorKind::kInvalidFormat, pixels.error().message, "instances", ""};
    out.pixels = std::move(pixels).value();
    return out;
  }
  out.pixels = std::get<api::TfPixels>(input).values;
  const size_t expected = size_t(info.channels) * info.height * info.width;
  if (out.pixels.size() == expected) return out;
  return ApiError{ErrorKind::kInvalidFormat,
                  fmt::format("instances: expected {} x {} x {} pixels, found {} values", info.channels, info.height,
                              info.width, out.pixels.size()),
                  "instances", ""};
}

asio::awaitable<OneShotPtr> named_model(Exchange& exchange) {
  std::string version = exchange.arguments() > 1 ? exchange.argument(1) : "";
  co_return co_await find_one_shot(exchange, exchange.argument(0), std::move(version), {});
}

json::array version_status(const ServedOneShot& model) {
  const json::object ok{{"error_code", "OK"}, {"error_message", ""}};
  const json::object entry{{"version", model.version()}, {"state", "AVAILABLE"}, {"status", ok}};
  json::array list;
  list.push_back(entry);
  return list;
}

}  // namespace

asio::awaitable<void> tf_predict(Exchange& exchange) {
  if (!co_await takes_requests(exchange)) co_return;
  OneShotPtr model = co_await named_model(exchange);
  if (!model) co_return;
  auto columns = std::make_shared<bool>(false);
  MakeRequests make = [columns, model, &exchange]() -> api::Parsed<OneShotRequests> {
    auto parsed = api::parse_tf_predict_request(exchange.request().body);
    if (!parsed.ok()) return parsed.error();
    *columns = parsed->columns;
    OneShotRequests requests;
    for (const api::TfInput& input : parsed->inputs) {
      auto request = request_of(*model, input);
      if (!request.ok()) return request.error();
      requests.push_back(std::move(*request));
    }
    return requests;
  };
  const api::EncodeCommon common;
  std::optional<OneShotOutputs> out = co_await run_one_shot(exchange, model, std::move(make), &common);
  if (!out) co_return;
  std::string body = api::tf_predict_response(out->values, *columns);
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tf_status(Exchange& exchange) {
  OneShotPtr model = co_await named_model(exchange);
  if (!model) co_return;
  std::string body = json::serialize(json::object{{"model_version_status", version_status(*model)}});
  co_await exchange.send_json(200, std::move(body));
}

asio::awaitable<void> tf_metadata(Exchange& exchange) {
  OneShotPtr model = co_await named_model(exchange);
  if (!model) co_return;
  const auto tensors_map = [](const std::vector<TensorSpec>& specs) {
    json::object out;
    for (const TensorSpec& spec : specs) {
      json::array dims{json::object{{"size", "-1"}, {"name", ""}}};
      for (const int64_t side : spec.shape) dims.push_back(json::object{{"size", std::to_string(side)}, {"name", ""}});
      const bool text = spec.datatype == api::Datatype::kBytes, number = spec.datatype == api::Datatype::kFp32;
      out[spec.name] = json::object{{"dtype", text     ? "DT_STRING"
                                              : number ? "DT_FLOAT"
                                                       : "DT_INT64"},
                                    {"tensor_shape", json::object{{"dim", dims}, {"unknown_rank", false}}},
                                    {"name", spec.name}};
    }
    return out;
  };
  const ModelTensors tensors = tensors_of(*model);
  const json::object signature{{"inputs", tensors_map(tensors.inputs)},
                               {"outputs", tensors_map(tensors.outputs)},
                               {"method_name", "tensorflow/serving/predict"}};
  const json::object definitions{{"signature_def", json::object{{"serving_default", signature}}}};
  std::string body = json::serialize(json::object{
      {"model_spec", json::object{{"name", model->name()}, {"signature_name", ""}, {"version", model->version()}}},
      {"metadata", json::object{{"signature_def", definitions}}}});
  co_await exchange.send_json(200, std::move(body));
}

}  // namespace spillway::server
