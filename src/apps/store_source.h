// A model of the repository whose files lie in a store.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "config/config.h"
#include "server/model_repository.h"
#include "store/download.h"

namespace spillway::apps {

// What is wrong with model.path as a location or with the options of stores.
Status check_store_options(const config::Config& config);

// Loads a version whose files are in a folder of this machine.
using FolderLoader =
    std::function<Result<server::LoadedVersion>(const std::string& folder, const std::string& version)>;

// A store that cannot be reached at the start is told of, and the copy on disk is served where there is one.
Result<server::ModelRepository::Source> store_source(const config::Config& config, FolderLoader load,
                                                     store::DownloadProgress progress);

}  // namespace spillway::apps
