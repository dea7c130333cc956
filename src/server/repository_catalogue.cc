#include "server/repository_catalogue.h"

#include <utility>

namespace spillway::server {
namespace {

// Own the whole version; null for a model of the other kind.
OneShotPtr one_shot_of(VersionPtr version) {
  if (!version || !version->one_shot) return nullptr;
  const ServedOneShot* model = version->one_shot.get();
  return OneShotPtr(std::move(version), model);
}

LanguagePtr language_of(VersionPtr version) {
  if (!version || !version->language) return nullptr;
  ServedModel* model = version->language.get();
  return LanguagePtr(std::move(version), model);
}

}  // namespace

OneShotPtr RepositoryCatalogue::find(std::string_view name, std::string_view version) const {
  return one_shot_of(repository_.find(name, version));
}

LanguagePtr RepositoryCatalogue::find_language(std::string_view name) const {
  return language_of(repository_.find(name));
}

void RepositoryCatalogue::acquire(std::string_view name, std::string_view version, TimePoint until, Found done) {
  // Not brought back to be told that it is of the wrong kind.
  const std::string wrong = "\"" + std::string(name) + "\" is a language model";
  if (repository_.kind(name) == ModelKind::kLanguage) return done(not_found(wrong));
  repository_.acquire_async(name, version, until, [done = std::move(done), wrong](Result<VersionPtr> found) {
    if (!found.ok()) return done(std::move(found).error());
    OneShotPtr model = one_shot_of(std::move(found).value());
    if (!model) return done(not_found(wrong));
    done(std::move(model));
  });
}

void RepositoryCatalogue::acquire_language(std::string_view name, TimePoint until, LanguageFound done) {
  const std::string wrong = "\"" + std::string(name) + "\" is no language model";
  if (repository_.kind(name) == ModelKind::kOneShot) return done(not_found(wrong));
  repository_.acquire_async(name, {}, until, [done = std::move(done), wrong](Result<VersionPtr> found) {
    if (!found.ok()) return done(std::move(found).error());
    LanguagePtr model = language_of(std::move(found).value());
    if (!model) return done(not_found(wrong));
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

std::vector<LanguagePtr> RepositoryCatalogue::languages() const {
  std::vector<LanguagePtr> models;
  for (const VersionPtr& version : repository_.ready()) {
    if (LanguagePtr model = language_of(version)) models.push_back(std::move(model));
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
