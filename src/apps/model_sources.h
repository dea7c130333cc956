// What the model repository loads from: for each model of the configuration, its versions where they lie (a folder, a
// store), what they need, and how they are loaded as the options say. The functions run on the repository's threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/local_model.h"
#include "base/result.h"
#include "config/config.h"
#include "engine/batching/device_share.h"
#include "server/model_repository.h"

namespace spillway::apps {

// Checks what can be known to be wrong before anything is loaded.
// share: of the one-shot models among them and of those that come later; null: there is but one model.
Result<std::vector<server::ModelRepository::Source>> model_sources(const std::vector<config::Config>& models,
                                                                   const LoadProgress& progress,
                                                                   std::shared_ptr<engine::DeviceShare> share);

// The folders of a model's folder that are to be served, oldest first: itself where it holds a config.json, else its
// numbered subfolders as model.versions says.
struct VersionFolder {
  std::string version;
  std::string path;
};
Result<std::vector<VersionFolder>> version_folders(const std::string& folder, const std::string& versions);

// Of a list of version numbers, those that model.versions names, in order.
Result<std::vector<std::string>> chosen_versions(std::vector<std::string> found, const std::string& versions);

}  // namespace spillway::apps
