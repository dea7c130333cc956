#include "models/one_shot_loader.h"

#include <fmt/format.h>

#include <boost/json/object.hpp>
#include <filesystem>

#include "models/config_reader.h"
#include "models/model_folder.h"
#include "models/packed_weights.h"

namespace spillway::models {
namespace {

// Products of encoders round the activations too in int8.
kernels::Precision cpu_precision(PrecisionChoice choice, const DecoderConfig& stored) {
  const kernels::Precision precision = resolve_precision(choice, stored);
  return precision == kernels::Precision::kInt8 ? kernels::Precision::kW8A8 : precision;
}

std::string name_of_cpu(kernels::Precision precision) {
  return precision == kernels::Precision::kW8A8 ? "int8" : std::string(name_of(precision));
}

struct Numbers {
  kernels::DeviceNumbers numbers;
  std::string_view name;
};

// By itself a device computes as the checkpoint is stored.
Result<Numbers> device_numbers(PrecisionChoice choice, const DecoderConfig& stored) {
  using kernels::DeviceNumbers;
  switch (choice) {
    case PrecisionChoice::kFp32:
      return Numbers{DeviceNumbers::kFp32, "fp32"};
    case PrecisionChoice::kTf32:
      return Numbers{DeviceNumbers::kTf32, "tf32"};
    case PrecisionChoice::kBf16:
      return Numbers{DeviceNumbers::kBf16, "bf16"};
    case PrecisionChoice::kFp16:
      return Numbers{DeviceNumbers::kFp16, "fp16"};
    case PrecisionChoice::kFp8:
      return Numbers{DeviceNumbers::kFp8, "fp8"};
    case PrecisionChoice::kAuto:
      if (stored.dtype == "bfloat16") return Numbers{DeviceNumbers::kBf16, "bf16"};
      if (stored.dtype == "float16") return Numbers{DeviceNumbers::kFp16, "fp16"};
      return Numbers{DeviceNumbers::kFp32, "fp32"};
    case PrecisionChoice::kInt8:
      return unsupported("precision int8 of encoders and vision models runs on the CPU; on CUDA use fp8, fp16 or bf16");
    case PrecisionChoice::kInt4:
      break;
  }
  return unsupported("precision int4 is for language models on a GPU; expected auto, fp32, tf32, bf16, fp16 or fp8");
}

// Both devices' words for the choice.
Status choose_precision(const LoadOptions& options, const boost::json::object& config, OneShotLoad& load) {
  DecoderConfig stored;
  ConfigReader reader(config, "config.json");
  stored.dtype = reader.string_or(reader.has("dtype") ? "dtype" : "torch_dtype", "");
  if (options.device.kind == tensor::DeviceKind::kCuda) {
    SW_ASSIGN(const Numbers chosen, device_numbers(options.precision, stored));
    load.numbers = chosen.numbers;
    load.precision_name = chosen.name;
    return {};
  }
  SW_TRY(check_precision(options.precision, options.device));
  load.precision = cpu_precision(options.precision, stored);
  load.precision_name = name_of_cpu(load.precision);
  return {};
}

}  // namespace

void tell_loaded(const nn::LoadContext& context, const std::string& precision, OneShotInfo& info) {
  info.weight_bytes = context.totals.bytes;
  info.parameters = context.totals.parameters;
  info.precision = precision;
}

Result<std::unique_ptr<OneShotModel>> load_one_shot_model(const LoadOptions& options, const nn::Fusions& fusions) {
  SW_TRY(tensor::check_available(options.device));
  if (options.batch_tokens_max < 1)
    return invalid(fmt::format("batch tokens: expected at least 1, found {}", options.batch_tokens_max));
  SW_ASSIGN(const auto config, read_config(options.path));
  SW_ASSIGN(const OneShotLoader family, find_one_shot_family(*config, options.device));
  SW_ASSIGN(tensor::Stream stream, tensor::Stream::open(options.device, options.threads));
  std::unique_ptr<weights::WeightSource> source;
  if (options.random_weights) {
    source = weights::random_weights({.dtype = tensor::DType::kF32, .seed = options.random_seed});
  } else {
    SW_ASSIGN(source, weights::open_checkpoint(options.path));
  }
  OneShotLoad load{.source = std::move(source),
                   .folder = std::filesystem::is_directory(options.path) ? options.path : std::string(),
                   .precision = kernels::Precision::kFp32,
                   .numbers = kernels::DeviceNumbers::kFp32,
                   .precision_name = "",
                   .batch_tokens_max = options.batch_tokens_max,
                   .fusions = fusions,
                   .stream = stream};
  SW_TRY(choose_precision(options, *config, load));
  const weights::WeightSource& kept = *load.source;  // by the model
  PackedWeights* packed =
      attach_packed_weights(options, *config, "one-shot " + load.precision_name, *load.source, stream);
  const kernels::PackScope scope(packed);
  if (packed == nullptr || packed->mapped_bytes() == 0) {
    load.source->expect_all();
    load.source->set_progress(options.progress);  // of the file it was the progress, otherwise
  } else {
    load.source->expect_few();
  }
  auto model = family(*config, std::move(load));
  if (!model.ok()) return model;
  kept.expect_few();
  if (packed != nullptr) packed->finish();
  return model;
}

}  // namespace spillway::models
