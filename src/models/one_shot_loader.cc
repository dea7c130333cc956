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
kernels::Precision resolve(const LoadOptions& options, const boost::json::object& config) {
  DecoderConfig stored;
  ConfigReader reader(config, "config.json");
  stored.dtype = reader.string_or(reader.has("dtype") ? "dtype" : "torch_dtype", "");
  const kernels::Precision precision = resolve_precision(options.precision, stored, options.device);
  return precision == kernels::Precision::kInt8 ? kernels::Precision::kW8A8 : precision;
}

}  // namespace

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
  const kernels::Precision precision = resolve(options, *config);
  const std::string variant = "one-shot " + std::string(name_of(precision));
  PackedWeights* packed = attach_packed_weights(options, *config, variant, *source, stream);
  const kernels::PackScope scope(packed);
  if (packed == nullptr || packed->mapped_bytes() == 0) {
    source->expect_all();
    source->set_progress(options.progress);  // of the file it was the progress, otherwise
  } else {
    source->expect_few();
  }
  const weights::WeightSource& kept = *source;  // by the model
  auto model = family(*config, {.source = std::move(source),
                                .folder = std::filesystem::is_directory(options.path) ? options.path : std::string(),
                                .precision = precision,
                                .batch_tokens_max = options.batch_tokens_max,
                                .fusions = fusions,
                                .stream = stream});
  if (!model.ok()) return model;
  kept.expect_few();
  if (packed != nullptr) packed->finish();
  return model;
}

}  // namespace spillway::models
