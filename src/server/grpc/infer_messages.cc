#include "server/grpc/infer_messages.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/common.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::Datatype;
using api::ErrorKind;

ApiError wrong(std::string message) { return {ErrorKind::kInvalidFormat, std::move(message), "inputs", ""}; }

// Elements as raw bytes of the type T that the datatype has, from the wider type of the repeated field.
template <class T, class Field>
bool pack(const Field& from, std::string& out) {
  out.reserve(from.size() * sizeof(T));
  for (const auto each : from) {
    const T value = static_cast<T>(each);
    if constexpr (!std::is_floating_point_v<T>) {
      if (static_cast<decltype(each)>(value) != each) return false;
    }
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return true;
}

bool pack_contents(const inference::InferTensorContents& from, Datatype type, std::string& out) {
  switch (type) {
    case Datatype::kBool:
      return pack<uint8_t>(from.bool_contents(), out);
    case Datatype::kInt8:
      return pack<int8_t>(from.int_contents(), out);
    case Datatype::kInt16:
      return pack<int16_t>(from.int_contents(), out);
    case Datatype::kInt32:
      return pack<int32_t>(from.int_contents(), out);
    case Datatype::kInt64:
      return pack<int64_t>(from.int64_contents(), out);
    case Datatype::kUint8:
      return pack<uint8_t>(from.uint_contents(), out);
    case Datatype::kUint16:
      return pack<uint16_t>(from.uint_contents(), out);
    case Datatype::kUint32:
      return pack<uint32_t>(from.uint_contents(), out);
    case Datatype::kUint64:
      return pack<uint64_t>(from.uint64_contents(), out);
    case Datatype::kFp32:
      return pack<float>(from.fp32_contents(), out);
    case Datatype::kFp64:
      return pack<double>(from.fp64_contents(), out);
    case Datatype::kBytes:
      for (const std::string& each : from.bytes_contents()) api::append_bytes_element(out, each);
      return true;
    case Datatype::kFp16:
    case Datatype::kBf16:
      break;
  }
  return false;
}

using Parameters = google::protobuf::Map<std::string, inference::InferParameter>;

std::optional<int64_t> integer(const Parameters& parameters, const char* name) {
  const auto found = parameters.find(name);
  if (found == parameters.end()) return std::nullopt;
  if (found->second.has_int64_param()) return found->second.int64_param();
  if (found->second.has_uint64_param()) return static_cast<int64_t>(found->second.uint64_param());
  return std::nullopt;
}

bool boolean(const Parameters& parameters, const char* name) {
  const auto found = parameters.find(name);
  return found != parameters.end() && found->second.bool_param();
}

std::optional<ApiError> read_input(const inference::ModelInferRequest& message, int index, api::InferRequest& out) {
  const auto& input = message.inputs(index);
  api::TensorIn tensor;
  tensor.name = input.name();
  tensor.shape.assign(input.shape().begin(), input.shape().end());
  const auto datatype = api::datatype_of(input.datatype());
  if (!datatype) {
    return wrong(fmt::format("input '{}': expected a datatype such as INT64, found '{}'", api::utf8_lossy(input.name()),
                             api::utf8_lossy(input.datatype())));
  }
  tensor.datatype = *datatype;
  if (input.parameters().contains("shared_memory_region")) {
    return ApiError{ErrorKind::kUnsupported, "shared memory is not offered by this server", "inputs", ""};
  }
  if (message.raw_input_contents_size() > 0) {
    if (input.has_contents()) return wrong("expected contents or raw_input_contents, found both");
    tensor.data = message.raw_input_contents(index);
  } else {
    std::string& bytes = out.storage.emplace_back();
    if (!pack_contents(input.contents(), *datatype, bytes)) {
      return wrong(
          fmt::format("input '{}': expected contents that fit {}", api::utf8_lossy(input.name()), input.datatype()));
    }
    tensor.data = bytes;
  }
  if (auto error = api::check_tensor(tensor)) return error;
  out.inputs.push_back(std::move(tensor));
  return std::nullopt;
}

}  // namespace

api::Parsed<api::InferRequest> infer_request_of(const inference::ModelInferRequest& message) {
  api::InferRequest out;
  out.id = message.id();
  out.timeout_us = integer(message.parameters(), "timeout");
  out.priority = integer(message.parameters(), "priority").value_or(0);
  out.truncate = boolean(message.parameters(), "truncate");
  if (message.inputs_size() == 0) return wrong("expected at least one tensor, found none");
  const int raw = message.raw_input_contents_size();
  if (raw > 0 && raw != message.inputs_size()) {
    return wrong(
        fmt::format("expected raw_input_contents for each of {} inputs, found {}", message.inputs_size(), raw));
  }
  for (int i = 0; i < message.inputs_size(); ++i) {
    if (auto error = read_input(message, i, out)) return std::move(*error);
  }
  for (const auto& asked : message.outputs()) {
    if (asked.parameters().contains("shared_memory_region")) {
      return ApiError{ErrorKind::kUnsupported, "shared memory is not offered by this server", "outputs", ""};
    }
    const auto classes = integer(asked.parameters(), "classification").value_or(0);
    out.outputs.push_back({asked.name(), true, static_cast<int>(std::clamp<int64_t>(classes, 0, 1 << 20))});
  }
  return out;
}

void fill(const api::InferResponse& response, inference::ModelInferResponse& message) {
  message.set_model_name(response.model);
  message.set_model_version(response.version);
  message.set_id(response.id);
  for (const api::TensorOut& tensor : response.outputs) {
    auto* output = message.add_outputs();
    output->set_name(tensor.name);
    output->set_datatype(std::string(api::datatype_name(tensor.datatype)));
    output->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    std::string* raw = message.add_raw_output_contents();
    if (tensor.datatype == Datatype::kBytes) {
      for (const std::string& each : tensor.strings) api::append_bytes_element(*raw, each);
    } else {
      raw->assign(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
    }
  }
}

}  // namespace spillway::server
