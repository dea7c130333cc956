#include "server/repository_catalogue.h"

#include <utility>

namespace spillway::server {
namespace {

// Owns the whole version; null for a language model.
OneShotPtr one_shot_of(VersionPtr version) {
  if (!version || !version->one_shot) return nullptr;
  const ServedOneShot* model = version->one_shot.get();
  return OneShotPtr(std::move(version), model);
}

}  // namespace

OneShotPtr RepositoryCatalogue::find(std::string_view name, std::string_view version) const {
  return one_shot_of(repository_.find(name, version));
}

void RepositoryCatalogue::acquire(std::string_view name, std::string_view version, Found done) {
  const std::string asked(name);
  repository_.acquire_async(name, version, [done = std::move(done), asked](Result<VersionPtr> found) {
    if (!found.ok()) return done(std::move(found).error());
    OneShotPtr model = one_shot_of(std::move(found).value());
    if (!model) return done(not_found("\"" + asked + "\" is a language model"));
    done(std::move(model));
  });
}

std::vector<OneShotPtr> RepositoryCatalogue::ready() const {
  std::vector<OneShotPtr> models;
  for (const VersionPtr& version : repository_.ready()) {
    if (OneShotPtr model = one_shot_of(version)) models.push_back(std::move(model));
  }
  return models;
}

std::vector<CatalogueEntry> RepositoryCatalogue::index() const {
  std::vector<CatalogueEntry> entries;
  for (VersionStatus& status : repository_.index()) {
    entries.push_back({std::move(status.name), std::move(status.version), std::string(name_of(status.state)),
                       std::move(status.reason)});
  }
  return entries;
}

}  // namespace spillway::server
