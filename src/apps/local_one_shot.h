// A one-shot model in this process, loaded as the options say.
#pragma once

#include <memory>
#include <string>

#include "apps/local_model.h"
#include "base/result.h"
#include "config/config.h"
#include "engine/batching/device_share.h"
#include "server/served_one_shot.h"

namespace spillway::apps {

// Whether the folder's config.json is that of an encoder or a vision model.
bool is_one_shot_folder(const std::string& folder);

// share: with the other one-shot models of the device; null: alone.
Result<std::shared_ptr<server::ServedOneShot>> load_local_one_shot(const config::Config& config,
                                                                   const std::string& folder,
                                                                   const std::string& version,
                                                                   std::shared_ptr<engine::DeviceShare> share,
                                                                   const LoadProgress& progress);

}  // namespace spillway::apps
