#include "server/model_catalogue.h"

#include <algorithm>

namespace spillway::server {

OneShotPtr FixedCatalogue::find(std::string_view name, std::string_view version) const {
  const auto found = std::ranges::find_if(models_, [&](const OneShotPtr& model) {
    return model->answers_to(name) && (version.empty() || version == model->version());
  });
  return found == models_.end() ? nullptr : *found;
}

LanguagePtr FixedCatalogue::find_language(std::string_view name) const {
  const auto found = std::ranges::find_if(languages_, [&](const auto& model) { return model->answers_to(name); });
  return found == languages_.end() ? nullptr : *found;
}

void FixedCatalogue::acquire(std::string_view name, std::string_view version, TimePoint, Found done) {
  OneShotPtr found = find(name, version);
  if (found) return done(std::move(found));
  done(not_found("there is no model \"" + std::string(name) + "\"" +
                 (version.empty() ? "" : " of version \"" + std::string(version) + "\"")));
}

void FixedCatalogue::acquire_language(std::string_view name, TimePoint, LanguageFound done) {
  LanguagePtr found = find_language(name);
  if (found) return done(std::move(found));
  done(not_found("there is no model \"" + std::string(name) + "\""));
}

bool FixedCatalogue::is_ready(std::string_view name, std::string_view version) const {
  return find(name, version) != nullptr || (find_language(name) != nullptr && version.empty());
}

ModelKind FixedCatalogue::kind(std::string_view name) const {
  if (find(name, "") != nullptr) return ModelKind::kOneShot;
  return find_language(name) != nullptr ? ModelKind::kLanguage : ModelKind::kUnknown;
}

std::vector<ListedModel> FixedCatalogue::listed() const {
  std::vector<ListedModel> all;
  for (const LanguagePtr& model : languages_) {
    all.push_back(
        {model->name(), model->aliases(), ModelKind::kLanguage, "", model->created(), model->context_tokens_max()});
  }
  for (const OneShotPtr& model : models_) {
    all.push_back({model->name(), model->aliases(), ModelKind::kOneShot, model->version(), model->created(),
                   model->text() != nullptr ? model->text()->tokens_max() : 0});
  }
  return all;
}

std::vector<CatalogueEntry> FixedCatalogue::index() const {
  std::vector<CatalogueEntry> entries;
  for (const OneShotPtr& model : models_) entries.push_back({model->name(), model->version(), "READY", ""});
  return entries;
}

Status FixedCatalogue::load(std::string_view name) {
  if (contains(name)) return {};
  return not_found("there is no model \"" + std::string(name) + "\"");
}

Status FixedCatalogue::unload(std::string_view) {
  return unsupported("the models of this server are fixed; serve a model repository to unload them");
}

}  // namespace spillway::server
