// Loading a language model by its config.json. load_model() may be called from any thread; the model it gives is then
// the engine's alone. A family is one file that defines its loader, and one row of the registry (registry.cc).
#pragma once

#include <boost/json/fwd.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "kernels/linear.h"
#include "models/config.h"
#include "models/language_model.h"
#include "weights/packed_cache.h"
#include "weights/weight_source.h"

namespace spillway::models {

enum class PrecisionChoice { kAuto, kFp32, kTf32, kBf16, kFp16, kInt8, kFp8, kInt4 };
// auto | fp32 | tf32 | bf16 | fp16 | int8 | fp8 | int4
Result<PrecisionChoice> parse_precision(const std::string& name);
// An error for those that a language model, or on a CPU any model, does not compute in.
Status check_precision(PrecisionChoice choice, tensor::Device device);

// "A:B" with A < B; empty: all.
Result<LayerRange> parse_layers(const std::string& text);

struct LoadOptions {
  std::string path;             // a checkpoint folder; with random_weights also a config.json alone
  bool random_weights = false;  // of the config's shapes; nothing but config.json is read
  uint64_t random_seed = 1;
  PrecisionChoice precision = PrecisionChoice::kAuto;
  int batch_tokens_max = 512;
  // A slice of the layers runs on random hidden states: it has a small made-up embedding and head where the model's own
  // belong to other slices, and no draft layer but with the last layer.
  LayerRange layers = {};
  tensor::Device device;
  int threads = 0;  // for loading; 0: as many as this process may run on
  weights::Progress progress;
  weights::PackedCacheOptions cache = {};  // of a checkpoint's packed weights; random ones have none
  // A CPU serves a checkpoint of at least so many bytes from its rows at once and packs it behind the first answers,
  // but with a cache that is to be written before.
  int64_t pack_later_bytes_min = 64 << 20;
  std::chrono::milliseconds pack_after{1000};  // the first requests have the machine to themselves
};

Result<std::unique_ptr<LanguageModel>> load_model(const LoadOptions& options);

class PackedWeights;
// Opens the cache of the checkpoint's packed weights and puts it in the source's keeping. variant: what tells these
// packed weights from others of the checkpoint ("bf16"). Null when there is to be none.
PackedWeights* attach_packed_weights(const LoadOptions& options, const boost::json::object& config,
                                     const std::string& variant, weights::WeightSource& source, tensor::Stream& stream);

// What a family's loader is given.
struct FamilyLoad {
  std::unique_ptr<weights::WeightSource> source;  // the model keeps it
  PrecisionChoice precision;
  int batch_tokens_max;
  LayerRange layers;
  tensor::Stream& stream;
};
using FamilyLoader = Result<std::unique_ptr<LanguageModel>> (*)(const boost::json::object& config, FamilyLoad load);

Result<std::unique_ptr<LanguageModel>> load_deepseek_v3(const boost::json::object& config, FamilyLoad load);
Result<std::unique_ptr<LanguageModel>> load_llama(const boost::json::object& config, FamilyLoad load);
Result<std::unique_ptr<LanguageModel>> load_qwen2(const boost::json::object& config, FamilyLoad load);
Result<std::unique_ptr<LanguageModel>> load_qwen3(const boost::json::object& config, FamilyLoad load);

// The family of config.json's "architectures", or an error that lists those served.
Result<FamilyLoader> find_family(const boost::json::object& config);

// kAuto: fp32 for float32 checkpoints and where the device is a CPU without bf16 products (weights keep their stored
// size then), else bf16.
kernels::Precision resolve_precision(PrecisionChoice choice, const DecoderConfig& config, tensor::Device device = {});
std::string_view name_of(kernels::Precision precision);

}  // namespace spillway::models
