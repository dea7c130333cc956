#include "models/loader.h"

#include <filesystem>

#include <boost/json/object.hpp>
#include <fmt/format.h>

#include "kernels/isa.h"
#include "models/model_folder.h"

namespace spillway::models {

Result<PrecisionChoice> parse_precision(const std::string& name) {
  if (name == "auto") return PrecisionChoice::kAuto;
  if (name == "fp32") return PrecisionChoice::kFp32;
  if (name == "bf16") return PrecisionChoice::kBf16;
  if (name == "int8") return PrecisionChoice::kInt8;
  return invalid(fmt::format("precision: expected auto, fp32, bf16 or int8; found '{}'", name));
}

std::string_view name_of(kernels::Precision precision) {
  switch (precision) {
    case kernels::Precision::kFp32:
      return "fp32";
    case kernels::Precision::kBf16:
      return "bf16";
    case kernels::Precision::kInt8:
      return "int8";
  }
  return "";
}

kernels::Precision resolve_precision(PrecisionChoice choice, const DecoderConfig& config) {
  switch (choice) {
    case PrecisionChoice::kFp32:
      return kernels::Precision::kFp32;
    case PrecisionChoice::kBf16:
      return kernels::Precision::kBf16;
    case PrecisionChoice::kInt8:
      return kernels::Precision::kInt8;
    case PrecisionChoice::kAuto:
      break;
  }
  const bool full = config.dtype == "float32" && !config.fp8_blocks;
  const bool has_bf16 = kernels::active_isa() == kernels::IsaLevel::kAvx512Bf16;
  return full || !has_bf16 ? kernels::Precision::kFp32 : kernels::Precision::kBf16;
}

namespace {

weights::RandomWeights random_options(const boost::json::object& config, uint64_t seed) {
  weights::RandomWeights random{.seed = seed};
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto* value = config.if_contains(key);
    if (value == nullptr || !value->is_string()) continue;
    if (value->as_string() == "float32") random.dtype = tensor::DType::kF32;
    if (value->as_string() == "float16") random.dtype = tensor::DType::kF16;
  }
  const auto* quantization = config.if_contains("quantization_config");
  random.fp8_blocks = quantization != nullptr && quantization->is_object();
  return random;
}

}  // namespace

Result<std::unique_ptr<LanguageModel>> load_model(const LoadOptions& options) {
  SW_TRY(tensor::check_available(options.device));
  if (options.batch_tokens_max < 1)
    return invalid(fmt::format("batch tokens: expected at least 1, found {}", options.batch_tokens_max));
  SW_ASSIGN(const auto config, read_config(options.path));
  SW_ASSIGN(const FamilyLoader family, find_family(*config));
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(options.device, options.threads));
  std::unique_ptr<weights::WeightSource> source;
  if (options.random_weights) {
    source = weights::random_weights(random_options(*config, options.random_seed));
  } else {
    SW_ASSIGN(source, weights::open_checkpoint(options.path));
    source->prefetch();
  }
  source->set_progress(options.progress);
  return family(*config, {.source = std::move(source),
                          .precision = options.precision,
                          .batch_tokens_max = options.batch_tokens_max,
                          .stream = stream});
}

}  // namespace spillway::models
