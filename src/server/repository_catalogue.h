// RepositoryCatalogue: a ModelRepository's one-shot models as the protocols see them. A model handed out keeps its
// version alive; the repository outlives the catalogue. Any thread.
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
  void acquire(std::string_view name, std::string_view version, Found done) override;
  bool contains(std::string_view name) const override { return repository_.contains(name); }
  std::vector<OneShotPtr> ready() const override;
  std::vector<CatalogueEntry> index() const override;
  Status load(std::string_view name) override { return repository_.load(name); }
  Status unload(std::string_view name) override { return repository_.unload(name); }

 private:
  ModelRepository& repository_;
};

}  // namespace spillway::server
