#include "models/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <filesystem>

#include "base/log.h"
#include "kernels/isa.h"
#include "models/late_packing.h"
#include "models/model_folder.h"
#include "models/packed_weights.h"
#include "tensor/cuda/cuda.h"
#include "weights/checksum.h"

namespace spillway::models {

namespace {

struct NamedPrecision {
  std::string_view name;
  PrecisionChoice choice;
};
constexpr NamedPrecision kPrecisions[] = {{"auto", PrecisionChoice::kAuto}, {"fp32", PrecisionChoice::kFp32},
                                          {"tf32", PrecisionChoice::kTf32}, {"bf16", PrecisionChoice::kBf16},
                                          {"fp16", PrecisionChoice::kFp16}, {"int8", PrecisionChoice::kInt8},
                                          {"fp8", PrecisionChoice::kFp8},   {"int4", PrecisionChoice::kInt4}};

}  // namespace

Result<PrecisionChoice> parse_precision(const std::string& name) {
  for (const auto& [known, choice] : kPrecisions) {
    if (known == name) return choice;
  }
  return invalid(fmt::format("precision: expected auto, fp32, tf32, bf16, fp16, int8, fp8 or int4; found '{}'", name));
}

Status check_precision(PrecisionChoice choice, tensor::Device device) {
  const auto name = std::ranges::find(kPrecisions, choice, &NamedPrecision::choice)->name;
  if (device.kind == tensor::DeviceKind::kCpu) {
    for (const char* common : {"auto", "fp32", "bf16", "int8"}) {
      if (name == common) return {};
    }
    return unsupported(fmt::format("precision: expected auto, fp32, bf16 or int8 on a CPU; found {}", name));
  }
  if (choice != PrecisionChoice::kFp16) return {};
  return unsupported(
      "precision: fp16 is for encoders and vision models; expected auto, fp32, tf32, bf16, int8, fp8 or int4 here");
}

Result<LayerRange> parse_layers(const std::string& text) {
  LayerRange range;
  if (text.empty()) return range;
  char rest = 0;
  const bool read = std::sscanf(text.c_str(), "%d:%d%c", &range.begin, &range.end, &rest) == 2;
  if (!read || range.begin < 0 || range.end <= range.begin)
    return invalid(fmt::format("layers: expected A:B with 0 <= A < B, found '{}'", text));
  return range;
}

std::string_view name_of(kernels::Precision precision) {
  switch (precision) {
    case kernels::Precision::kFp32:
      return "fp32";
    case kernels::Precision::kBf16:
      return "bf16";
    case kernels::Precision::kInt8:
    case kernels::Precision::kW8A8:
      return "int8";
    case kernels::Precision::kTf32:
      return "tf32";
    case kernels::Precision::kFp8:
      return "fp8";
    case kernels::Precision::kInt4:
      return "int4";
  }
  return "";
}

kernels::Precision resolve_precision(PrecisionChoice choice, const DecoderConfig& config, tensor::Device device) {
  switch (choice) {
    case PrecisionChoice::kFp32:
      return kernels::Precision::kFp32;
    case PrecisionChoice::kBf16:
      return kernels::Precision::kBf16;
    case PrecisionChoice::kInt8:
      return kernels::Precision::kInt8;
    case PrecisionChoice::kTf32:
      return kernels::Precision::kTf32;
    case PrecisionChoice::kFp8:
      return kernels::Precision::kFp8;
    case PrecisionChoice::kInt4:
      return kernels::Precision::kInt4;
    default:
      break;
  }
  const bool full = config.dtype == "float32" && !config.fp8_blocks;
  const bool has_bf16 = device.kind == tensor::DeviceKind::kCuda || kernels::has_bf16_products(kernels::active_isa());
  return full || !has_bf16 ? kernels::Precision::kFp32 : kernels::Precision::kBf16;
}

namespace {

std::string stored_dtype(const boost::json::object& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto* value = config.if_contains(key);
    if (value != nullptr && value->is_string()) return std::string(value->as_string());
  }
  return "";
}

bool has_fp8_blocks(const boost::json::object& config) {
  const auto* quantization = config.if_contains("quantization_config");
  return quantization != nullptr && quantization->is_object();
}

weights::RandomWeights random_options(const boost::json::object& config, uint64_t seed) {
  weights::RandomWeights random{.seed = seed};
  const std::string dtype = stored_dtype(config);
  if (dtype == "float32") random.dtype = tensor::DType::kF32;
  if (dtype == "float16") random.dtype = tensor::DType::kF16;
  random.fp8_blocks = has_fp8_blocks(config);
  return random;
}

bool uses_cache(const LoadOptions& options) {
  return options.layers.all() && options.cache.mode != weights::PackedCacheOptions::Mode::kOff &&
         !options.random_weights && options.device.kind == tensor::DeviceKind::kCpu;
}

std::string variant_of(const LoadOptions& options, const boost::json::object& config) {
  DecoderConfig stored;
  stored.dtype = stored_dtype(config);
  stored.fp8_blocks = has_fp8_blocks(config);
  return std::string(name_of(resolve_precision(options.precision, stored)));
}

// Null when all is to be packed before the model is given.
LatePacking* attach_late_packing(const LoadOptions& options, PackedWeights* packed, weights::WeightSource& source) {
  if (options.device.kind != tensor::DeviceKind::kCpu || options.random_weights ||
      options.cache.mode == weights::PackedCacheOptions::Mode::kOn ||
      source.bytes_total() < options.pack_later_bytes_min) {
    return nullptr;
  }
  auto late = std::make_shared<LatePacking>(source, packed, options.pack_after);
  source.attach(late, 0);
  return late.get();
}

}  // namespace

PackedWeights* attach_packed_weights(const LoadOptions& options, const boost::json::object& config,
                                     const std::string& variant, weights::WeightSource& source,
                                     tensor::Stream& stream) {
  if (!uses_cache(options)) return nullptr;
  // Packed bytes are the same on every CPU.
  const std::string text = boost::json::serialize(config);
  weights::PackedCache cache(
      options.cache, options.path, variant,
      fmt::format("spillway packing {} {}\nconfig.json {:016x}\n{}", kernels::kPackingVersion, variant,
                  weights::checksum(std::as_bytes(std::span(text))), source.identity()));
  if (cache.options().mode == weights::PackedCacheOptions::Mode::kOff) return nullptr;
  auto packed = std::make_shared<PackedWeights>(source, std::move(cache), stream, options.progress);
  source.attach(packed, packed->mapped_bytes());
  return packed.get();
}

Result<std::unique_ptr<LanguageModel>> load_model(const LoadOptions& options) {
  SW_TRY(tensor::check_available(options.device));
  SW_TRY(check_precision(options.precision, options.device));
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
  }
  PackedWeights* packed = attach_packed_weights(options, *config, variant_of(options, *config), *source, stream);
  LatePacking* late = attach_late_packing(options, packed, *source);
  const kernels::PackScope scope(packed, late);
  if (packed == nullptr || packed->mapped_bytes() == 0) {
    source->expect_all();
    source->set_progress(options.progress);  // of the file it was the progress, otherwise
  } else {
    source->expect_few();
  }
  const weights::WeightSource& kept = *source;  // by the model
  if (options.device.kind == tensor::DeviceKind::kCuda) {
    const tensor::cuda::DeviceInfo& info = tensor::cuda::device_info(options.device.index);
    SW_INFO("{}: {}, compute capability {}.{}, code for {}.{}, computes in {}", to_string(options.device), info.name,
            info.major, info.minor, info.code / 10, info.code % 10, tensor::cuda::precision_tier(info.capability()));
  }
  auto model = family(*config, {.source = std::move(source),
                                .precision = options.precision,
                                .batch_tokens_max = options.batch_tokens_max,
                                .layers = options.layers,
                                .stream = stream});
  if (!model.ok()) return model;
  kept.expect_few();
  if (late != nullptr && late->start()) return model;  // which finishes
  if (packed != nullptr) packed->finish();
  return model;
}

}  // namespace spillway::models
