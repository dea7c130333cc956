#include "apps/model_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>

#include "apps/local_one_shot.h"
#include "apps/store_source.h"
#include "engine/batching/device_share.h"
#include "store/location.h"

namespace spillway::apps {
namespace {

namespace fs = std::filesystem;
using config::Config;
using config::Key;
using config::Type;
using server::LoadedVersion;
using server::ModelRepository;

// What the sources of one program share.
struct Common {
  LoadProgress progress;
  std::shared_ptr<engine::DeviceShare> share;  // of the one-shot models; null: there is but one model
};

bool is_version(const std::string& name) {
  return !name.empty() && name.size() <= 18 && name.find_first_not_of("0123456789") == name.npos &&
         (name == "0" || name[0] != '0');
}

// A text that changes when the folder's files do.
std::string folder_identity(const std::string& folder) {
  std::map<std::string, std::string> files;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder, error)) {
    if (!file.is_regular_file(error)) continue;
    const auto changed = file.last_write_time(error).time_since_epoch().count();
    files[file.path().filename().string()] = fmt::format("{}:{}", file.file_size(error), changed);
  }
  std::string identity = folder;
  for (const auto& [name, state] : files) identity += fmt::format("|{}:{}", name, state);
  return identity;
}

// The weights as they are stored: packed or quantised ones take no more, but where a narrow checkpoint is computed with
// in fp32.
Result<int64_t> weight_bytes(const std::string& folder, const Config& config) {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& file : fs::directory_iterator(folder, error)) {
    if (file.path().extension() == ".safetensors") bytes += int64_t(file.file_size(error));
  }
  if (error) return not_found(folder + ": " + error.message());
  return config.text("model.precision") == "int8" ? bytes / 2 : bytes;
}

Config with_path(Config config, const std::string& folder) {
  const std::string name = model_name(config);
  for (const auto& [key, value] : {std::pair{"model.path", folder}, {"model.name", name}}) {
    const Status set = config.set_flag(config::find_option(key), value);
    SW_CHECK(set.ok(), "a path and a name are any text");
  }
  return config;
}

Result<LoadedVersion> load_folder(const Config& config, const std::string& folder, const std::string& version,
                                  const Common& common) {
  LoadedVersion loaded;
  if (folder != "builtin" && !config.boolean("model.random_weights") && is_one_shot_folder(folder)) {
    SW_ASSIGN(loaded.one_shot, load_local_one_shot(config, folder, version, common.share, common.progress));
    loaded.bytes = loaded.one_shot->info().weight_bytes;
    return loaded;
  }
  SW_ASSIGN(LocalModel local, load_local_model(with_path(config, folder), common.progress));
  loaded.language = std::move(local.served);
  loaded.bytes = local.info.weight_bytes + config.bytes("engine.kv_cache");
  return loaded;
}

// A model in a folder of this machine, or the embedded one.
ModelRepository::Source folder_source(const Config& config, const std::shared_ptr<Common>& common) {
  ModelRepository::Source source;
  const std::string path = config.text("model.path");
  const bool folder = fs::is_directory(path) && !config.boolean("model.random_weights");
  const auto path_of = [path](const ModelRepository::Candidate& candidate) {
    const fs::path numbered = fs::path(path) / candidate.version;
    return fs::exists(fs::path(path) / "config.json") || !fs::is_directory(numbered) ? path : numbered.string();
  };
  source.scan = [path, folder,
                 versions = config.text("model.versions")]() -> Result<std::vector<ModelRepository::Candidate>> {
    std::vector<ModelRepository::Candidate> candidates;
    if (!folder) {
      candidates.push_back({"1", path});
      return candidates;
    }
    SW_ASSIGN(const auto folders, version_folders(path, versions));
    for (const VersionFolder& one : folders) candidates.push_back({one.version, folder_identity(one.path)});
    return candidates;
  };
  source.bytes_needed = [config, folder, path_of](const ModelRepository::Candidate& candidate) -> Result<int64_t> {
    const int64_t cache = config.bytes("engine.kv_cache");
    if (!folder) return cache;
    SW_ASSIGN(const int64_t weights, weight_bytes(path_of(candidate), config));
    return weights + (is_one_shot_folder(path_of(candidate)) ? 0 : cache);
  };
  source.load = [config, common, path_of](const ModelRepository::Candidate& candidate) {
    return load_folder(config, path_of(candidate), candidate.version, *common);
  };
  return source;
}

}  // namespace

Result<std::vector<std::string>> chosen_versions(std::vector<std::string> found, const std::string& versions) {
  std::erase_if(found, [](const std::string& name) { return !is_version(name); });
  std::ranges::sort(found, [](const std::string& a, const std::string& b) { return std::stoll(a) < std::stoll(b); });
  if (found.empty()) return not_found("expected a config.json or numbered versions, found neither");
  if (versions == "all") return found;
  if (versions == "latest") return std::vector<std::string>{found.back()};
  std::vector<std::string> chosen;
  for (size_t begin = 0; begin <= versions.size();) {
    const size_t end = std::min(versions.find(',', begin), versions.size());
    const std::string one = versions.substr(begin, end - begin);
    begin = end + 1;
    if (!is_version(one))
      return invalid(fmt::format("model.versions: expected latest, all or numbers, found \"{}\"", one));
    if (std::ranges::find(found, one) == found.end()) return not_found("model.versions: there is no version " + one);
    chosen.push_back(one);
  }
  return chosen;
}

Result<std::vector<VersionFolder>> version_folders(const std::string& folder, const std::string& versions) {
  std::error_code error;
  if (fs::exists(fs::path(folder) / "config.json", error)) return std::vector<VersionFolder>{{"1", folder}};
  std::vector<std::string> found;
  for (const auto& one : fs::directory_iterator(folder, error)) {
    if (fs::exists(one.path() / "config.json", error)) found.push_back(one.path().filename().string());
  }
  auto chosen = chosen_versions(std::move(found), versions);
  if (!chosen.ok()) return Error(chosen.error()).in(folder);
  std::vector<VersionFolder> folders;
  for (const std::string& version : *chosen) folders.push_back({version, (fs::path(folder) / version).string()});
  return folders;
}

Result<std::vector<ModelRepository::Source>> model_sources(const std::vector<Config>& models,
                                                           const LoadProgress& progress,
                                                           std::shared_ptr<engine::DeviceShare> share) {
  auto common = std::make_shared<Common>();
  common->progress = progress;
  common->share = std::move(share);
  std::vector<ModelRepository::Source> sources;
  std::set<std::string> names;
  for (const Config& config : models) {
    SW_TRY(check_model_options(config));
    ModelRepository::Source source;
    if (store::is_location(config.text("model.path"))) {
      const auto load = [config, common](const std::string& folder, const std::string& version) {
        return load_folder(config, folder, version, *common);
      };
      SW_ASSIGN(source, store_source(config, load, common->progress));
    } else {
      source = folder_source(config, common);
    }
    source.name = model_name(config);
    source.aliases = config.strings("model.aliases");
    source.load_at_start = config.boolean("model.load");
    for (const std::string& name : source.aliases) {
      if (!names.insert(name).second) return invalid(fmt::format("models: the name \"{}\" is given twice", name));
    }
    if (!names.insert(source.name).second)
      return invalid(fmt::format("models: the name \"{}\" is given twice", source.name));
    sources.push_back(std::move(source));
  }
  return sources;
}

}  // namespace spillway::apps
