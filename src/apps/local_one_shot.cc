#include "apps/local_one_shot.h"

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/log.h"
#include "models/one_shot_loader.h"

namespace spillway::apps {
namespace {

engine::OneShotEngineOptions one_shot_options(const config::Config& config) {
  engine::OneShotEngineOptions options;
  options.name = model_name(config);
  options.threads = int(config.integer("hardware.threads"));
  options.queue.requests_max = int(config.integer("engine.queue_requests_max"));
  options.queue.tokens_max = config.integer("engine.queue_tokens_max");
  options.queue.wait_max_s = config.seconds("engine.queue_wait_max");
  for (engine::QueuePolicy& policy : options.policies) {
    policy.timeout_s = config.seconds("batching.timeout");
    policy.reject = config.text("batching.timeout_action") == "reject";
  }
  options.batch_cost_max = config.integer("batching.tokens_max");
  options.batch_inputs_max = int(config.integer("model.batch_size"));
  options.delay_max_s = config.seconds("batching.delay_max");
  options.latency_target_s = config.seconds("batching.latency_target");
  options.cooldown_s = config.seconds("batching.cooldown");
  options.warm_up_s = config.seconds("batching.warm_up");
  options.stall_s = config.seconds("server.stall_timeout");
  options.weight = config.number("batching.weight");
  return options;
}

}  // namespace

bool is_one_shot_folder(const std::string& folder) {
  std::ifstream in(std::filesystem::path(folder) / "config.json", std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  boost::system::error_code error;
  const boost::json::value parsed = boost::json::parse(text, error);
  return !error && parsed.is_object() && models::is_one_shot(parsed.get_object());
}

Result<std::shared_ptr<server::ServedOneShot>> load_local_one_shot(const config::Config& config,
                                                                   const std::string& folder,
                                                                   const std::string& version,
                                                                   std::shared_ptr<engine::DeviceShare> share,
                                                                   const LoadProgress& progress) {
  models::LoadOptions load;
  load.path = folder;
  SW_ASSIGN(load.precision, models::parse_precision(config.text("model.precision")));
  load.batch_tokens_max = int(config.integer("batching.tokens_max"));
  SW_ASSIGN(load.device, chosen_device(config));
  load.threads = int(config.integer("hardware.threads"));
  load.progress = progress;
  load.cache = cache_options(config);
  auto loaded = models::load_one_shot_model(load);
  if (!loaded.ok() && loaded.error().code == ErrorCode::kUnsupported && config.text("hardware.device") == "auto" &&
      load.device.kind == tensor::DeviceKind::kCuda) {
    SW_WARN("{}: {}: the CPU is used", model_name(config), loaded.error().message);
    load.device = {};
    loaded = models::load_one_shot_model(load);
  }
  SW_ASSIGN(auto model, std::move(loaded));
  engine::OneShotEngineOptions options = one_shot_options(config);
  options.device = load.device;
  options.share = std::move(share);
  SW_ASSIGN(auto engine, engine::start_one_shot_engine(std::move(model), options));
  server::ServedOneShotOptions served;
  served.name = model_name(config);
  served.version = version;
  if (config.is_explicit(config::Key<config::Type::kStrings>("model.aliases")))
    served.aliases = config.strings("model.aliases");
  served.folder = folder;
  return server::ServedOneShot::make(std::move(served), std::move(engine));
}

}  // namespace spillway::apps
