#include "apps/local_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>
#include <numeric>
#include <optional>
#include <thread>

#include "apps/builtin_model.h"
#include "apps/model_sources.h"
#include "apps/shapes.h"
#include "apps/store_source.h"
#include "apps/system.h"
#include "base/log.h"
#include "engine/memory.h"
#include "kernels/isa.h"
#include "models/loader.h"
#include "store/location.h"
#include "tensor/cuda/cuda.h"

namespace spillway::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kBuiltin = "builtin";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Where the loader finds the model, and what must live until it has.
struct Source {
  std::string path;
  std::optional<MemoryFolder> folder;
};

Result<Source> open_source(const config::Config& config) {
  Source source{config.text("model.path"), {}};
  const Shape* shape = config.boolean("model.random_weights") ? find_shape(source.path) : nullptr;
  if (source.path != kBuiltin && shape == nullptr) return source;
  SW_ASSIGN(MemoryFolder folder, shape ? MemoryFolder::create({{"config.json", shape->config}}) : builtin_folder());
  source.path = folder.path();
  source.folder.emplace(std::move(folder));
  return source;
}

Result<std::unique_ptr<models::LanguageModel>> load_weights(const config::Config& config, const Source& source,
                                                            const LoadProgress& progress,
                                                            const models::LayerRange& layers = {}) {
  models::LoadOptions options;
  options.layers = layers;
  options.path = source.path;
  options.random_weights = config.boolean("model.random_weights");
  SW_ASSIGN(options.precision, models::parse_precision(config.text("model.precision")));
  options.batch_tokens_max = int(config.integer("engine.batch_tokens_max"));
  SW_ASSIGN(options.device, chosen_device(config));
  options.threads = int(config.integer("hardware.threads"));
  options.progress = progress;
  // The embedded model's folder lives in memory, and packing it takes a few milliseconds.
  if (!source.folder) options.cache = cache_options(config);
  return models::load_model(options);
}

int context_tokens(const config::Config& config, const models::ModelInfo& info) {
  const auto wanted = int(config.integer("model.context_tokens_max"));
  return wanted > 0 && wanted < info.context_tokens_max ? wanted : info.context_tokens_max;
}

// A shape with random weights has no text of its own: the embedded model's stands in, so that it can be served.
Result<server::CheckpointText> read_checkpoint_text(const config::Config& config, const std::string& folder) {
  std::error_code error;
  if (!config.boolean("model.random_weights") || fs::exists(fs::path(folder) / "tokenizer.json", error)) {
    return server::CheckpointText::read(folder);
  }
  SW_WARN("{} has no tokenizer; with its random weights, that of the embedded model is used",
          config.text("model.path"));
  SW_ASSIGN(const MemoryFolder builtin, builtin_folder());
  return server::CheckpointText::read(builtin.path());
}

Result<std::shared_ptr<server::ServedModel>> read_text(const config::Config& config, const std::string& folder) {
  SW_ASSIGN(const server::CheckpointText text, read_checkpoint_text(config, folder));
  server::ServedModelOptions options;
  options.name = model_name(config);
  options.aliases = config.strings("model.aliases");
  options.default_max_tokens = int(config.integer("model.default_max_tokens"));
  return server::ServedModel::make(options, text, nullptr);
}

// On a GPU: what sequences_max contexts need, of what the engine finds free once all else is there, but for the share
// that hardware.memory_fraction leaves alone.
void size_device_cache(const config::Config& config, const models::ModelInfo& info, engine::EngineOptions& options) {
  options.page_tokens = 64;  // what the attention kernels read at once
  const auto total = double(tensor::cuda::memory_info(options.device.index).total_bytes);
  options.device_bytes_kept = int64_t(total * (1 - config.number("hardware.memory_fraction")));
  const int64_t contexts = int64_t{info.context_tokens_max / options.page_tokens + 1} * options.sequences_max;
  if (options.kv_cache_bytes == 0) options.kv_cache_bytes = contexts * info.kv.bytes_per_page(options.page_tokens);
}

// Keeps the cache within what hardware.memory_fraction leaves beside the weights. usable: before they were loaded.
Status limit_cache(const config::Config& config, const models::ModelInfo& info, int64_t usable,
                   engine::EngineOptions& options) {
  SW_ASSIGN(options.device, chosen_device(config));
  options.autotune = config.boolean("hardware.autotune");
  const std::string& folder = config.text("model.cache_dir");
  if (config.text("model.cache") != "off")
    options.tuning_folder = folder.empty() ? weights::default_cache_folder() : folder;
  options.deterministic = config.boolean("hardware.deterministic");
  if (options.device.kind == tensor::DeviceKind::kCuda) {
    size_device_cache(config, info, options);
    return {};
  }
  const int64_t page = info.kv.bytes_per_page(options.page_tokens);
  const int64_t wanted = engine::choose_pages(info, options, engine::memory_available_bytes()) * page;
  const auto allowed = int64_t(double(usable) * config.number("hardware.memory_fraction")) - info.weight_bytes;
  if (wanted <= allowed) return {};
  if (allowed < page * 2) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("memory: the weights take {} of the {} that hardware.memory_fraction {} allows, which "
                             "leaves no room for the cache",
                             format_bytes(info.weight_bytes), format_bytes(allowed + info.weight_bytes),
                             config.number("hardware.memory_fraction"))};
  }
  SW_WARN("memory: the cache gets {} instead of {}, so that weights and cache stay within hardware.memory_fraction",
          format_bytes(allowed), format_bytes(wanted));
  options.kv_cache_bytes = allowed;
  return {};
}

}  // namespace

Result<tensor::Device> chosen_device(const config::Config& config) {
  const std::string& name = config.text("hardware.device");
  std::vector<int64_t> ids = config.integers("hardware.gpu_ids");
  if (ids.empty()) {
    ids.resize(size_t(std::max(1, tensor::cuda::device_count())));
    std::iota(ids.begin(), ids.end(), 0);
  }
  const auto usable = [](int64_t id) { return tensor::check_available({tensor::DeviceKind::kCuda, int(id)}).ok(); };
  const auto found = std::ranges::find_if(ids, usable);
  const tensor::Device gpu{tensor::DeviceKind::kCuda, int(found == ids.end() ? ids[0] : *found)};
  if (name == "auto") return found == ids.end() ? tensor::Device{} : gpu;
  SW_ASSIGN(tensor::Device device, tensor::parse_device(name));
  if (name == "cuda") device = gpu;
  const auto available = tensor::check_available(device);
  if (!available.ok()) return Error(available.error()).in("hardware.device");
  return device;
}

std::string device_fallback(const config::Config& config) {
  const std::vector<int64_t>& ids = config.integers("hardware.gpu_ids");
  if (ids.empty() || config.text("hardware.device") == "cpu") return "";
  std::vector<int64_t> there;
  for (const int64_t id : ids) {
    if (tensor::check_available({tensor::DeviceKind::kCuda, int(id)}).ok()) there.push_back(id);
  }
  if (there.size() == ids.size() && ids.size() == 1) return "";
  const auto device = chosen_device(config);
  const std::string used = device.ok() ? tensor::to_string(*device) : "nothing";
  const auto first = tensor::check_available({tensor::DeviceKind::kCuda, int(ids[0])});
  if (there.empty()) {
    return fmt::format("hardware.gpu_ids asks for GPUs {}, of which there is none here ({}): {} is used",
                       fmt::join(ids, ", "), first.ok() ? "" : first.error().message, used);
  }
  return fmt::format("hardware.gpu_ids asks for GPUs {}, of which {} are here and a model uses one: {} is used",
                     fmt::join(ids, ", "), there.size(), used);
}

std::string precision_fallback(const config::Config& config) {
  const auto device = chosen_device(config);
  if (!device.ok()) return "";
  if (device->kind == tensor::DeviceKind::kCuda) {
    if (config.text("model.precision") != "tf32" || tensor::cuda::device_info(device->index).capability() >= 80)
      return "";
    return "model.precision asks for tf32, which GPUs have from compute capability 8.0 on: products are in fp32";
  }
  if (config.text("model.precision") != "bf16") return "";
  if (kernels::has_bf16_products(kernels::active_isa())) return "";
  return "model.precision asks for bf16, for which this processor has no instructions: numbers are rounded to bf16 and "
         "multiplied in fp32, no faster than fp32";
}

std::string model_name(const config::Config& config) {
  if (const std::string& name = config.text("model.name"); !name.empty()) return name;
  const std::string& path = config.text("model.path");
  if (path == kBuiltin) return "tiny-r1";
  const fs::path plain =
      fs::path(store::is_location(path) ? path.substr(path.find("://") + 2) : path).lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
}

weights::PackedCacheOptions cache_options(const config::Config& config) {
  using Mode = weights::PackedCacheOptions::Mode;
  const std::string& mode = config.text("model.cache");
  return {.mode = mode == "on"     ? Mode::kOn
                  : mode == "auto" ? Mode::kAuto
                                   : Mode::kOff,
          .folder = config.text("model.cache_dir"),
          .bytes_max = config.bytes("model.cache_bytes_max")};
}

Status check_model_options(const config::Config& config) {
  const std::string& path = config.text("model.path");
  const auto wrong = [&](const std::string& found) {
    return not_found(fmt::format(
        "model.path: expected the folder of a Hugging Face checkpoint or \"builtin\", found \"{}\"{}", path, found));
  };
  const bool stored = store::is_location(path);
  if (stored) SW_TRY(check_store_options(config));
  std::error_code error;
  const bool random = config.boolean("model.random_weights");
  if (random && !stored && find_shape(path) == nullptr && path != kBuiltin && !fs::exists(path, error)) {
    return wrong(", which does not exist and is no named shape (" + shape_names() + ")");
  }
  if (!random && !stored && path != kBuiltin) {
    if (!fs::exists(path, error)) return wrong(", which does not exist");
    if (!fs::is_directory(path, error)) return wrong(", which is not a folder");
    const auto versions = version_folders(path, config.text("model.versions"));
    if (!versions.ok() && versions.error().code == ErrorCode::kInvalidArgument) return versions.error();
    if (!versions.ok()) return wrong(", which holds no config.json and no such versions");
  }
  const auto device = chosen_device(config);
  if (!device.ok()) return device.error();
  for (const std::string& fallback : {device_fallback(config), precision_fallback(config)}) {
    if (config.boolean("hardware.strict") && !fallback.empty())
      return unsupported(fallback + ", which hardware.strict forbids");
  }
  return {};
}

engine::EngineOptions engine_options(const config::Config& config) {
  engine::EngineOptions options;
  options.kv_cache_bytes = config.bytes("engine.kv_cache");
  options.kv_populate = config.boolean("engine.kv_populate");
  options.page_tokens = int(config.integer("engine.page_tokens"));
  options.sequences_max = int(config.integer("engine.sequences_max"));
  options.batch_tokens_max = int(config.integer("engine.batch_tokens_max"));
  options.queue_requests_max = int(config.integer("engine.queue_requests_max"));
  options.queue_tokens_max = config.integer("engine.queue_tokens_max");
  options.queue_wait_max_s = config.seconds("engine.queue_wait_max");
  options.prefix_cache = config.boolean("engine.prefix_cache");
  options.speculate = config.boolean("engine.speculate");
  options.speculate_adaptively = config.boolean("engine.speculate_adaptively");
  options.step_target_s = config.seconds("engine.step_target");
  options.stall_s = config.seconds("server.stall_timeout");
  options.threads = int(config.integer("hardware.threads"));
  return options;
}

Result<LocalModel> load_local_model(const config::Config& config, const LoadProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t usable = read_memory().usable();
  SW_ASSIGN(const Source source, open_source(config));
  auto text = std::async(std::launch::async, [&] { return read_text(config, source.path); });
  auto model = load_weights(config, source, progress);
  auto served = text.get();
  if (!model.ok()) return std::move(model).error();
  if (!served.ok()) return std::move(served).error();
  LocalModel local{std::move(served).value(), (*model)->info(), 0};
  engine::EngineOptions options = engine_options(config);
  options.vocab_limit = std::min(local.served->tokenizer().vocab_size(), local.info.vocab_size);
  SW_TRY(limit_cache(config, local.info, usable, options));
  SW_ASSIGN(auto engine, engine::Engine::start(std::move(model).value(), options));
  local.served->attach(std::move(engine), context_tokens(config, local.info), local.info.vocab_size,
                       "fp_spillway_" + local.info.precision);
  local.load_s = seconds_since(start);
  return local;
}

namespace {

void wait_settled(const models::LanguageModel& model) {
  while (!model.settled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

}  // namespace

Result<BareModel> load_bare_model(const config::Config& config, const std::string& layers,
                                  const LoadProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  SW_ASSIGN(const models::LayerRange range, models::parse_layers(layers));
  SW_ASSIGN(const Source source, open_source(config));
  BareModel bare;
  SW_ASSIGN(bare.device, chosen_device(config));
  SW_ASSIGN(bare.model, load_weights(config, source, progress, range));
  wait_settled(*bare.model);
  bare.load_s = seconds_since(start);
  return bare;
}

Result<LocalEngine> load_local_engine(const config::Config& config, const LoadProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t usable = read_memory().usable();
  SW_ASSIGN(const Source source, open_source(config));
  SW_ASSIGN(auto model, load_weights(config, source, progress));
  LocalEngine local{.engine = nullptr, .info = model->info()};
  engine::EngineOptions options = engine_options(config);
  SW_TRY(limit_cache(config, local.info, usable, options));
  local.model = model.get();
  SW_ASSIGN(local.engine, engine::Engine::start(std::move(model), options));
  local.load_s = seconds_since(start);
  return local;
}

void LocalEngine::wait_settled() const { apps::wait_settled(*model); }

}  // namespace spillway::apps
