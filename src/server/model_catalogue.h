// ModelCatalogue: the one-shot models of this process as protocols see them: by name and version, ready or not, to be
// loaded and unloaded. The server's view of a ModelRepository, or of a fixed list. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/served_one_shot.h"

namespace spillway::server {

using OneShotPtr = std::shared_ptr<const ServedOneShot>;

struct CatalogueEntry {
  std::string name;
  std::string version;
  std::string state;   // Triton's words: "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
  std::string reason;  // why it is not ready
};

class ModelCatalogue {
 public:
  virtual ~ModelCatalogue() = default;

  // The ready model of that name or alias; an empty version is the newest. Null: not there or not ready.
  virtual OneShotPtr find(std::string_view name, std::string_view version) const = 0;

  // As find; a model that was put aside is brought back first. done is called once, at once or on another thread.
  using Found = std::function<void(Result<OneShotPtr>)>;
  virtual void acquire(std::string_view name, std::string_view version, Found done) = 0;

  virtual bool contains(std::string_view name) const = 0;  // known, ready or not
  virtual std::vector<OneShotPtr> ready() const = 0;       // the newest of each
  virtual std::vector<CatalogueEntry> index() const = 0;   // every known version
  virtual Status load(std::string_view name) = 0;          // blocks
  virtual Status unload(std::string_view name) = 0;        // blocks
};

// Models that are there from the start and stay.
class FixedCatalogue final : public ModelCatalogue {
 public:
  explicit FixedCatalogue(std::vector<OneShotPtr> models) : models_(std::move(models)) {}

  OneShotPtr find(std::string_view name, std::string_view version) const override;
  void acquire(std::string_view name, std::string_view version, Found done) override;
  bool contains(std::string_view name) const override { return find(name, "") != nullptr; }
  std::vector<OneShotPtr> ready() const override { return models_; }
  std::vector<CatalogueEntry> index() const override;
  Status load(std::string_view name) override;
  Status unload(std::string_view name) override;

 private:
  const std::vector<OneShotPtr> models_;
};

}  // namespace spillway::server
