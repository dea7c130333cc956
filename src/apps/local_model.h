// A model in this process, loaded as the options say: for serving, or bare for benchmarks of a shape. Loading reads the
// text files on a thread of their own while the weights come.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "config/config.h"
#include "engine/engine.h"
#include "models/language_model.h"
#include "server/served_model.h"
#include "weights/packed_cache.h"

namespace spillway::apps {

// Whether nothing is to be loaded: a gateway alone.
inline bool names_no_model(const config::Config& config) {
  return config.text("model.path") == "none" && !config.has_models();
}

using LoadProgress = std::function<void(int64_t bytes_done, int64_t bytes_total)>;

struct LocalModel {
  std::shared_ptr<server::ServedModel> served;
  models::ModelInfo info;
  double load_s = 0;
};

struct LocalEngine {
  std::unique_ptr<engine::Engine> engine;
  models::ModelInfo info;
  double load_s = 0;
  const models::LanguageModel* model = nullptr;  // the engine's

  // Until weights that are packed behind the first answers are where they stay: benchmarks measure what comes then.
  void wait_settled() const;
};

// The model without an engine, for measuring its steps.
struct BareModel {
  std::unique_ptr<models::LanguageModel> model;
  tensor::Device device;
  double load_s = 0;
};

// What can be known to be wrong before anything is loaded: the path, the device.
Status check_model_options(const config::Config& config);

Result<LocalModel> load_local_model(const config::Config& config, const LoadProgress& progress);

// Without tokenizer and template.
Result<LocalEngine> load_local_engine(const config::Config& config, const LoadProgress& progress);

// "auto": the first GPU of hardware.gpu_ids (or of all) that this program can use, else the CPU.
Result<tensor::Device> chosen_device(const config::Config& config);

// What was asked for of devices and is not to be had, in one sentence; empty where nothing is missing.
std::string device_fallback(const config::Config& config);
// The same of model.precision: numbers that the processor has no instructions for.
std::string precision_fallback(const config::Config& config);

// layers: "A:B", or empty for all.
Result<BareModel> load_bare_model(const config::Config& config, const std::string& layers,
                                  const LoadProgress& progress);

engine::EngineOptions engine_options(const config::Config& config);
weights::PackedCacheOptions cache_options(const config::Config& config);

// "tiny-r1" of the builtin model, else model.name or the folder's name.
std::string model_name(const config::Config& config);

}  // namespace spillway::apps
