// Loading a one-shot model (an encoder or a vision model) by its config.json.
#pragma once

#include <boost/json/fwd.hpp>
#include <memory>

#include "base/result.h"
#include "models/loader.h"
#include "models/one_shot_model.h"

namespace spillway::models {

bool is_one_shot(const boost::json::object& config);
Result<std::unique_ptr<OneShotModel>> load_one_shot_model(const LoadOptions& options);

}  // namespace spillway::models
