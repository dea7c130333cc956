#include "apps/store_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "apps/model_sources.h"
#include "base/log.h"
#include "store/snapshot.h"

namespace spillway::apps {
namespace {

using config::Config;
using server::LoadedVersion;
using server::ModelRepository;
using store::Object;

Result<store::StoreOptions> store_options(const Config& config) {
  store::StoreOptions options;
  options.endpoint = config.text("store.endpoint");
  options.credentials.region = config.text("store.region");
  options.cache_dir = config.text("store.cache_dir");
  options.connections = int(config.integer("store.connections"));
  options.part_bytes = config.bytes("store.part_bytes");
  options.timeout_s = config.seconds("store.timeout");
  options.attempts = int(config.integer("store.attempts"));
  SW_TRY(options.complete());
  return options;
}

// The model's files at a location, by version. Its functions are called from the model's thread of the repository.
class StoredModel {
 public:
  StoredModel(std::string url, store::Location location, store::StoreOptions options, std::string versions,
              FolderLoader load, store::DownloadProgress progress)
      : url_(std::move(url)),
        location_(std::move(location)),
        options_(std::move(options)),
        versions_(std::move(versions)),
        load_(std::move(load)),
        progress_(std::move(progress)) {}

  Result<std::vector<ModelRepository::Candidate>> scan() {
    Result<std::vector<ModelRepository::Candidate>> found = scan_store();
    if (found.ok() || !versions_found_.empty()) return found;  // what is being served stays
    const auto kept = cache("1").latest();
    if (!kept.ok()) return found;
    SW_WARN("{}; the copy in {} is served", found.error().message, kept->folder);
    kept_ = *kept;
    return std::vector<ModelRepository::Candidate>{{"1", kept->identity}};
  }

  Result<int64_t> bytes_needed(const ModelRepository::Candidate& candidate) const {
    int64_t bytes = 0;
    const auto found = versions_found_.find(candidate.version);
    if (found == versions_found_.end()) return bytes;
    for (const Object& object : found->second.objects) bytes += object.name.ends_with(".safetensors") ? object.size : 0;
    return bytes;
  }

  Result<LoadedVersion> load(const ModelRepository::Candidate& candidate) {
    const auto found = versions_found_.find(candidate.version);
    if (found == versions_found_.end()) return load_(kept_.folder, candidate.version);
    SW_ASSIGN(const std::string folder,
              cache(candidate.version).fetch(*found->second.store, found->second.objects, options_, progress_));
    return load_(folder, candidate.version);
  }

 private:
  struct Version {
    std::shared_ptr<store::Store> store;
    std::vector<Object> objects;
  };

  store::SnapshotCache cache(const std::string& version) const {
    return {options_.cache_dir, location_.folder_name(options_.endpoint) + "-" + version};
  }

  Result<std::vector<ModelRepository::Candidate>> scan_store() {
    SW_ASSIGN(auto opened, store::open_store(location_, options_));
    const std::shared_ptr<store::Store> whole = std::move(opened);
    store::Connection connection(options_.credentials, options_.timeout_s);
    Result<std::vector<Object>> objects = Error{};
    for (int attempt = 0; attempt < options_.attempts; ++attempt) {
      if (attempt > 0) std::this_thread::sleep_for(std::chrono::milliseconds(100 << std::min(attempt, 5)));
      objects = whole->list(connection);
      if (objects.ok() || objects.error().code != ErrorCode::kUnavailable) break;
    }
    if (!objects.ok()) return objects.error();
    std::map<std::string, Version> found;
    const auto at_root = [](const Object& object) { return object.name == "config.json"; };
    if (std::ranges::any_of(*objects, at_root)) {
      found["1"] = {whole, std::move(*objects)};
    } else {
      SW_TRY(numbered(*objects, found));
    }
    std::vector<ModelRepository::Candidate> candidates;
    for (const auto& [version, files] : found)
      candidates.push_back({version, store::SnapshotCache::identity_of(files.objects)});
    std::ranges::sort(candidates,
                      [](const auto& a, const auto& b) { return std::stoll(a.version) < std::stoll(b.version); });
    versions_found_ = std::move(found);
    return candidates;
  }

  // Versions in numbered folders, as Triton lays them out.
  Status numbered(const std::vector<Object>& objects, std::map<std::string, Version>& found) {
    std::map<std::string, std::vector<Object>> folders;
    for (const Object& object : objects) {
      const size_t slash = object.name.find('/');
      if (slash == object.name.npos) continue;
      Object inside = object;
      inside.name = object.name.substr(slash + 1);
      folders[object.name.substr(0, slash)].push_back(std::move(inside));
    }
    std::vector<std::string> names;
    for (const auto& [name, files] : folders) {
      if (std::ranges::any_of(files, [](const Object& object) { return object.name == "config.json"; }))
        names.push_back(name);
    }
    auto chosen = chosen_versions(std::move(names), versions_);
    if (!chosen.ok()) return Error(chosen.error()).in(url_);
    for (const std::string& name : *chosen) {
      store::Location inside = location_;
      inside.prefix += (inside.prefix.empty() ? "" : "/") + name;
      SW_ASSIGN(auto opened, store::open_store(inside, options_));
      found[name] = {std::move(opened), folders[name]};
    }
    return {};
  }

  const std::string url_;
  const store::Location location_;
  const store::StoreOptions options_;
  const std::string versions_;
  const FolderLoader load_;
  const store::DownloadProgress progress_;
  std::map<std::string, Version> versions_found_;  // by the last scan that succeeded
  store::SnapshotCache::Kept kept_;                // served while the store has not answered yet
};

}  // namespace

Status check_store_options(const Config& config) {
  if (const auto location = store::parse_location(config.text("model.path")); !location.ok()) {
    return Error(location.error()).in("model.path");
  }
  if (const auto options = store_options(config); !options.ok()) return options.error();
  return {};
}

Result<ModelRepository::Source> store_source(const Config& config, FolderLoader load,
                                             store::DownloadProgress progress) {
  const std::string& url = config.text("model.path");
  SW_ASSIGN(store::Location location, store::parse_location(url));
  SW_ASSIGN(store::StoreOptions options, store_options(config));
  auto model = std::make_shared<StoredModel>(url, std::move(location), std::move(options),
                                             config.text("model.versions"), std::move(load), std::move(progress));
  ModelRepository::Source source;
  source.scan = [model] { return model->scan(); };
  source.bytes_needed = [model](const ModelRepository::Candidate& candidate) { return model->bytes_needed(candidate); };
  source.load = [model](const ModelRepository::Candidate& candidate) { return model->load(candidate); };
  return source;
}

}  // namespace spillway::apps
