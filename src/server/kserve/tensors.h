// The tensors by which KServe's protocol speaks to a one-shot model. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/kserve.h"
#include "server/served_one_shot.h"

namespace spillway::server {

struct TensorSpec {
  std::string name;
  api::Datatype datatype = api::Datatype::kFp32;
  std::vector<int64_t> shape;  // without the batch; -1: any
  bool optional = false;
};

struct ModelTensors {
  std::vector<TensorSpec> inputs, outputs;
};

// An encoder takes "text", or "input_ids" with "attention_mask" and "token_type_ids"; a vision model "pixel_values", or
// "image" with the bytes of files. Metadata and configuration list the first as required, the others as optional.
ModelTensors tensors_of(const ServedOneShot& model);

std::string_view tensor_name(models::OneShotOutput output);
std::optional<models::OneShotOutput> output_of(std::string_view tensor_name);

// "spillway_encoder" or "spillway_vision": what metadata and configuration call the platform.
const char* platform_of(const ServedOneShot& model);

inline constexpr const char* kServerName = "spillway";
inline constexpr const char* kServerVersion = SPILLWAY_VERSION;
// What Triton's clients look for in the server's metadata.
std::vector<std::string> server_extensions();
// Why a load with a parameter of that name is refused.
std::string loads_without_parameters(std::string_view name);

}  // namespace spillway::server
