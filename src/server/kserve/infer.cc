#include "server/kserve/infer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "server/kserve/tensors.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::Datatype;
using api::ErrorKind;
using api::Parsed;
using api::TensorIn;
using models::OneShotOutput;

ApiError wrong(std::string message) { return {ErrorKind::kInvalidFormat, std::move(message), "inputs", ""}; }

std::string shown(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

const TensorIn* find(const api::InferRequest& request, std::string_view name) {
  const auto found = std::ranges::find(request.inputs, name, &TensorIn::name);
  return found == request.inputs.end() ? nullptr : &*found;
}

template <class T>
int64_t element(std::string_view data, size_t index) {
  T value;
  std::memcpy(&value, data.data() + index * sizeof(T), sizeof(T));
  return static_cast<int64_t>(value);
}

// Integers of any width as int64.
Parsed<std::vector<int64_t>> integers(const TensorIn& tensor) {
  const size_t width = api::datatype_bytes(tensor.datatype);
  std::vector<int64_t> out(width > 0 ? tensor.data.size() / width : 0);
  for (size_t i = 0; i < out.size(); ++i) {
    switch (tensor.datatype) {
      case Datatype::kInt64:
      case Datatype::kUint64:
        out[i] = element<int64_t>(tensor.data, i);
        break;
      case Datatype::kInt32:
        out[i] = element<int32_t>(tensor.data, i);
        break;
      case Datatype::kUint32:
        out[i] = element<uint32_t>(tensor.data, i);
        break;
      case Datatype::kInt8:
        out[i] = element<int8_t>(tensor.data, i);
        break;
      case Datatype::kUint8:
      case Datatype::kBool:
        out[i] = element<uint8_t>(tensor.data, i);
        break;
      default:
        return wrong(fmt::format("input '{}': expected integers such as INT64, found {}", tensor.name,
                                 api::datatype_name(tensor.datatype)));
    }
  }
  return out;
}

class Planner {
 public:
  Planner(const ServedOneShot& model, const api::InferRequest& request) : model_(model), request_(request) {}

  std::optional<ApiError> run(InferPlan& plan) {
    plan.id = request_.id;
    if (auto error = choose_outputs(plan)) return error;
    if (auto error = check_names()) return error;
    if (auto error = model_.info().vision ? read_images(plan) : read_tokens(plan)) return error;
    if (plan.rows == 0) return wrong("expected at least one row, found none");
    if (plan.rows > int64_t(api::kInputsMax)) {
      return wrong(fmt::format("expected at most {} rows, found {}", api::kInputsMax, plan.rows));
    }
    multiply(plan);
    return std::nullopt;
  }

 private:
  std::optional<ApiError> choose_outputs(InferPlan& plan) {
    if (request_.outputs.empty()) {
      const OneShotOutput kind = model_.info().outputs.front();
      plan.outputs.push_back({kind, {std::string(tensor_name(kind)), request_.binary_outputs, 0}});
    }
    for (const api::OutputAsked& asked : request_.outputs) {
      const auto kind = output_of(asked.name);
      if (!kind || !model_.offers(*kind)) {
        std::string offered;
        for (const OneShotOutput each : model_.info().outputs) offered += fmt::format(" {}", tensor_name(each));
        return ApiError{ErrorKind::kInvalidFormat,
                        fmt::format("unexpected inference output '{}' for model '{}'; it has{}",
                                    api::utf8_lossy(asked.name), model_.name(), offered),
                        "outputs", ""};
      }
      if (asked.classification > 0 && *kind != OneShotOutput::kScores) {
        return ApiError{ErrorKind::kInvalidFormat, "output '" + asked.name + "' has no classes", "outputs", ""};
      }
      plan.outputs.push_back({*kind, asked});
    }
    return std::nullopt;
  }

  std::optional<ApiError> check_names() {
    const ModelTensors known = tensors_of(model_);
    for (size_t i = 0; i < request_.inputs.size(); ++i) {
      const std::string& name = request_.inputs[i].name;
      if (std::ranges::find(known.inputs, name, &TensorSpec::name) == known.inputs.end()) {
        std::string expected;
        for (const TensorSpec& spec : known.inputs) expected += " " + spec.name;
        return wrong(fmt::format("unexpected inference input '{}' for model '{}'; it has{}", api::utf8_lossy(name),
                                 model_.name(), expected));
      }
      for (size_t j = 0; j < i; ++j) {
        if (request_.inputs[j].name == name) return wrong(fmt::format("input '{}' came twice", name));
      }
    }
    return std::nullopt;
  }

  // [N] or [N, 1] of BYTES.
  Parsed<std::vector<std::string_view>> elements(const TensorIn& tensor) {
    const bool flat = tensor.shape.size() == 1 || (tensor.shape.size() == 2 && tensor.shape[1] == 1);
    if (tensor.datatype != Datatype::kBytes || !flat) {
      return wrong(fmt::format("input '{}': expected BYTES of shape [N] or [N,1], found {} of shape {}", tensor.name,
                               api::datatype_name(tensor.datatype), shown(tensor.shape)));
    }
    return api::bytes_elements(tensor.data);
  }

  std::optional<ApiError> read_images(InferPlan& plan) {
    const models::OneShotInfo& info = model_.info();
    if (const TensorIn* files = find(request_, "image")) {
      const auto given = elements(*files);
      if (!given.ok()) return given.error();
      const std::vector<std::string> copies(given->begin(), given->end());
      auto requests = image_requests(model_, copies);
      if (!requests.ok()) return requests.error();
      plan.requests = std::move(*requests);
      plan.rows = int64_t(plan.requests.size());
      return std::nullopt;
    }
    const TensorIn* pixels = find(request_, "pixel_values");
    if (pixels == nullptr) return wrong("expected 'pixel_values' or 'image', found neither");
    std::vector<int64_t> shape = pixels->shape;
    plan.has_batch = shape.size() != 3;
    if (!plan.has_batch) shape.insert(shape.begin(), 1);
    const bool fits =
        shape.size() == 4 && shape[1] == info.channels && shape[2] == info.height && shape[3] == info.width;
    if (pixels->datatype != Datatype::kFp32 || !fits) {
      return wrong(fmt::format("input 'pixel_values': expected FP32 of shape [N,{},{},{}], found {} of shape {}",
                               info.channels, info.height, info.width, api::datatype_name(pixels->datatype),
                               shown(pixels->shape)));
    }
    plan.rows = shape[0];
    const size_t each = size_t(info.channels) * info.height * info.width;
    for (int64_t row = 0; row < plan.rows; ++row) {
      engine::OneShotRequest& request = plan.requests.emplace_back();
      request.pixels.resize(each);
      std::memcpy(request.pixels.data(), pixels->data.data() + row * each * sizeof(float), each * sizeof(float));
    }
    return std::nullopt;
  }

  std::optional<ApiError> read_tokens(InferPlan& plan) {
    const TensorIn* ids = find(request_, "input_ids");
    const TensorIn* text = find(request_, "text");
    if (ids != nullptr && text != nullptr) return wrong("expected 'text' or 'input_ids', found both");
    if (ids != nullptr) return read_ids(*ids, plan);
    if (text == nullptr) return wrong("expected 'text' or 'input_ids', found neither");
    const auto given = elements(*text);
    if (!given.ok()) return given.error();
    std::vector<api::TextOrIds> inputs;
    for (const std::string_view each : *given) inputs.emplace_back(std::string(each));
    const api::Truncation truncation{request_.truncate, false, 0};
    auto requests = text_requests(model_, inputs, "", truncation, plan.outputs.front().kind);
    if (!requests.ok()) return requests.error();
    plan.requests = std::move(*requests);
    plan.rows = int64_t(plan.requests.size());
    for (const auto& request : plan.requests) plan.columns = std::max(plan.columns, int64_t(request.tokens.size()));
    return std::nullopt;
  }

  // A tensor beside input_ids, of the same shape; empty when it was not given.
  Parsed<std::vector<int64_t>> beside(const char* name, const TensorIn& ids) {
    const TensorIn* tensor = find(request_, name);
    if (tensor == nullptr) return std::vector<int64_t>();
    if (tensor->shape != ids.shape) {
      return wrong(fmt::format("input '{}': expected the shape {} of input_ids, found {}", name, shown(ids.shape),
                               shown(tensor->shape)));
    }
    return integers(*tensor);
  }

  std::optional<ApiError> read_ids(const TensorIn& tensor, InferPlan& plan) {
    plan.has_batch = tensor.shape.size() != 1;
    if (tensor.shape.empty() || tensor.shape.size() > 2) {
      return wrong("input 'input_ids': expected shape [N,S], found " + shown(tensor.shape));
    }
    plan.rows = plan.has_batch ? tensor.shape[0] : 1;
    plan.columns = tensor.shape.back();
    const auto ids = integers(tensor), mask = beside("attention_mask", tensor),
               types = beside("token_type_ids", tensor);
    for (const auto* each : {&ids, &mask, &types}) {
      if (!each->ok()) return each->error();
    }
    const models::OneShotInfo& info = model_.info();
    const int type_max = std::max(info.type_vocab_size, 1) - 1;
    for (int64_t row = 0; row < plan.rows; ++row) {
      engine::OneShotRequest& request = plan.requests.emplace_back();
      std::vector<int>& positions = plan.positions.emplace_back();
      for (int64_t column = 0; column < plan.columns; ++column) {
        const size_t at = size_t(row * plan.columns + column);
        if (!mask->empty() && (*mask)[at] == 0) continue;
        const int64_t id = (*ids)[at], type = types->empty() ? 0 : (*types)[at];
        if (id < 0 || id >= info.vocab_size) {
          return wrong(fmt::format("input 'input_ids': expected ids from 0 to {}, found {} at [{},{}]",
                                   info.vocab_size - 1, id, row, column));
        }
        if (type < 0 || type > type_max) {
          return wrong(fmt::format("input 'token_type_ids': expected 0 to {}, found {} at [{},{}]", type_max, type, row,
                                   column));
        }
        request.tokens.push_back(int32_t(id));
        if (!types->empty()) request.types.push_back(int32_t(type));
        positions.push_back(int(column));
      }
      const size_t tokens = request.tokens.size();
      if (tokens == 0 || tokens > size_t(info.tokens_max)) {
        return wrong(fmt::format("input 'input_ids': expected 1 to {} tokens in a row, found {} in row {}",
                                 info.tokens_max, tokens, row));
      }
    }
    return std::nullopt;
  }

  // Each further output is a pass of its own over the same rows.
  static void multiply(InferPlan& plan) {
    const size_t rows = plan.requests.size();
    for (engine::OneShotRequest& request : plan.requests) request.output = plan.outputs.front().kind;
    for (size_t i = 1; i < plan.outputs.size(); ++i) {
      for (size_t row = 0; row < rows; ++row) {
        engine::OneShotRequest copy = plan.requests[row];
        copy.output = plan.outputs[i].kind;
        plan.requests.push_back(std::move(copy));
      }
    }
  }

  const ServedOneShot& model_;
  const api::InferRequest& request_;
};

// Triton's "value:index:label".
void classify(const ServedOneShot& model, const std::vector<float>& logits, int count, api::TensorOut& out) {
  std::vector<int> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  for (int i = 0; i < std::min<int>(count, int(order.size())); ++i) {
    out.strings.push_back(fmt::format("{}:{}:{}", logits[order[i]], order[i], model.info().labels[order[i]]));
  }
}

// Token vectors go back to where their tokens stood; padding is zero.
void place(const InferPlan& plan, size_t row, const std::vector<float>& vectors, size_t width,
           std::vector<float>& out) {
  const size_t begin = out.size();
  out.resize(begin + size_t(plan.columns) * width);
  const size_t tokens = width > 0 ? vectors.size() / width : 0;
  for (size_t i = 0; i < tokens; ++i) {
    const size_t column = plan.positions.empty() ? i : size_t(plan.positions[row][i]);
    std::copy_n(vectors.begin() + i * width, width, out.begin() + begin + column * width);
  }
}

}  // namespace

Parsed<InferPlan> plan_infer(const ServedOneShot& model, const api::InferRequest& request) {
  InferPlan plan;
  if (auto error = Planner(model, request).run(plan)) return std::move(*error);
  return plan;
}

api::InferResponse finish_infer(const ServedOneShot& model, const InferPlan& plan, Vectors outputs) {
  api::InferResponse response{model.name(), model.version(), plan.id, {}};
  const auto rows = size_t(plan.rows);
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const InferPlan::Output& wanted = plan.outputs[i];
    api::TensorOut tensor;
    tensor.name = wanted.asked.name;
    tensor.binary = wanted.asked.binary;
    if (plan.has_batch) tensor.shape.push_back(plan.rows);
    const std::span<std::vector<float>> mine(outputs.data() + i * rows, rows);
    if (wanted.asked.classification > 0) {
      tensor.datatype = Datatype::kBytes;
      for (const auto& row : mine) classify(model, row, wanted.asked.classification, tensor);
      tensor.shape.push_back(int64_t(tensor.strings.size() / rows));
    } else if (wanted.kind == OneShotOutput::kTokenVectors) {
      const auto width = size_t(model.info().hidden_size);
      for (size_t row = 0; row < rows; ++row) place(plan, row, mine[row], width, tensor.values);
      tensor.shape.push_back(plan.columns);
      tensor.shape.push_back(int64_t(width));
    } else {
      tensor.shape.push_back(int64_t(mine[0].size()));
      if (rows == 1) tensor.values = std::move(mine[0]);
      for (size_t row = 0; rows > 1 && row < rows; ++row) {
        tensor.values.insert(tensor.values.end(), mine[row].begin(), mine[row].end());
      }
    }
    response.outputs.push_back(std::move(tensor));
  }
  return response;
}

void apply_limits(const api::InferRequest& request, TimePoint deadline, OneShotRequests& out) {
  if (request.timeout_us && *request.timeout_us > 0) {
    deadline = std::min(deadline, std::chrono::steady_clock::now() + std::chrono::microseconds(*request.timeout_us));
  }
  // Triton counts from 1, the most urgent; 2 is what "0: the default" means here.
  const auto priority = request.priority == 0 || request.priority == 2 ? engine::Priority::kNormal
                        : request.priority == 1                        ? engine::Priority::kHigh
                                                                       : engine::Priority::kLow;
  for (engine::OneShotRequest& each : out) {
    each.deadline = deadline;
    each.priority = priority;
  }
}

}  // namespace spillway::server
