#include "models/one_shot_loader.h"

namespace spillway::models {

bool is_one_shot(const boost::json::object&) { return false; }

Result<std::unique_ptr<OneShotModel>> load_one_shot_model(const LoadOptions& options) {
  return unsupported(options.path + ": this build has no one-shot models");
}

}  // namespace spillway::models
