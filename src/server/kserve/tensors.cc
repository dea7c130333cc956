#include "server/kserve/tensors.h"

namespace spillway::server {

using api::Datatype;
using models::OneShotOutput;

ModelTensors tensors_of(const ServedOneShot& model) {
  const models::OneShotInfo& info = model.info();
  ModelTensors tensors;
  if (info.vision) {
    tensors.inputs = {{"pixel_values", Datatype::kFp32, {info.channels, info.height, info.width}, false},
                      {"image", Datatype::kBytes, {1}, true}};
  } else {
    tensors.inputs = {{"text", Datatype::kBytes, {1}, false},
                      {"input_ids", Datatype::kInt64, {-1}, true},
                      {"attention_mask", Datatype::kInt64, {-1}, true},
                      {"token_type_ids", Datatype::kInt64, {-1}, true}};
  }
  for (const OneShotOutput output : info.outputs) {
    TensorSpec spec{std::string(tensor_name(output)), Datatype::kFp32, {}, false};
    switch (output) {
      case OneShotOutput::kEmbedding:
        spec.shape = {info.embedding_dims};
        break;
      case OneShotOutput::kTokenVectors:
        spec.shape = {-1, info.hidden_size};
        break;
      case OneShotOutput::kScores:
        spec.shape = {int64_t(info.labels.size())};
        break;
      case OneShotOutput::kSparse:
        spec.shape = {info.vocab_size};
        break;
      case OneShotOutput::kPooled:
        spec.shape = {info.hidden_size};
        break;
    }
    tensors.outputs.push_back(std::move(spec));
  }
  return tensors;
}

std::string_view tensor_name(OneShotOutput output) {
  switch (output) {
    case OneShotOutput::kEmbedding:
      return "embedding";
    case OneShotOutput::kTokenVectors:
      return "last_hidden_state";
    case OneShotOutput::kScores:
      return "logits";
    case OneShotOutput::kPooled:
      return "pooler_output";
    case OneShotOutput::kSparse:
      break;
  }
  return "sparse_embedding";
}

std::optional<OneShotOutput> output_of(std::string_view name) {
  for (const OneShotOutput output : {OneShotOutput::kEmbedding, OneShotOutput::kTokenVectors, OneShotOutput::kScores,
                                     OneShotOutput::kSparse, OneShotOutput::kPooled}) {
    if (name == tensor_name(output)) return output;
  }
  return std::nullopt;
}

const char* platform_of(const ServedOneShot& model) {
  return model.info().vision ? "spillway_vision" : "spillway_encoder";
}

std::vector<std::string> server_extensions() {
  return {"classification",     "model_configuration", "model_repository",
          "binary_tensor_data", "statistics",          "parameters"};
}

std::string loads_without_parameters(std::string_view name) {
  return "parameters: expected none, found \"" + api::utf8_lossy(name) +
         "\"; a model is loaded with the files and the configuration that it has at its place";
}

}  // namespace spillway::server
