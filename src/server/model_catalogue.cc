#include "server/model_catalogue.h"

#include <algorithm>

namespace spillway::server {

OneShotPtr FixedCatalogue::find(std::string_view name, std::string_view version) const {
  const auto found = std::ranges::find_if(models_, [&](const OneShotPtr& model) {
    return model->answers_to(name) && (version.empty() || version == model->version());
  });
  return found == models_.end() ? nullptr : *found;
}

void FixedCatalogue::acquire(std::string_view name, std::string_view version, Found done) {
  OneShotPtr found = find(name, version);
  if (found) return done(std::move(found));
  done(not_found("there is no model \"" + std::string(name) + "\"" +
                 (version.empty() ? "" : " of version \"" + std::string(version) + "\"")));
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
