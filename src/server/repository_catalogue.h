// RepositoryCatalogue: a ModelRepository's models as the protocols see them. A model handed out keeps its version
// alive; the repository outlives the catalogue. Any thread.
#pragma once

#include <string>
#include <vector>

#include "server/model_catalogue.h"
#include "server/model_repository.h"

namespace spillway::server {

class RepositoryCatalogue final : public ModelCatalogue {
 public:
  explicit RepositoryCatalogue(ModelRepository& repository) : repository_(repository) {}

  OneShotPtr find(std::string_view name, std::string_view version) const override;
  LanguagePtr find_language(std::string_view name) const override;
  void acquire(std::string_view name, std::string_view version, TimePoint until, Found done) override;
  void acquire_language(std::string_view name, TimePoint until, LanguageFound done) override;
  bool contains(std::string_view name) const override { return repository_.contains(name); }
  bool is_ready(std::string_view name, std::string_view version) const override {
    return repository_.is_ready(name, version);
  }
  ModelKind kind(std::string_view name) const override { return repository_.kind(name); }
  double load_seconds(std::string_view name) const override { return repository_.load_seconds(name); }
  std::vector<OneShotPtr> ready() const override;
  std::vector<LanguagePtr> languages() const override;
  std::vector<ListedModel> listed() const override { return repository_.listed(); }
  std::vector<CatalogueEntry> index() const override;
  Status load(std::string_view name) override { return repository_.load(name); }
  Status unload(std::string_view name) override { return repository_.unload(name); }

 private:
  ModelRepository& repository_;
};

}  // namespace spillway::server
