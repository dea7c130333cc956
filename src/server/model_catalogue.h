// ModelCatalogue: the models of this process as protocols see them: by name, one-shot models by version as well, ready,
// evicted or neither, to be loaded and unloaded. The server's view of a ModelRepository, or of a fixed list. A model
// handed out stays whole for as long as it is held. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "server/loaded_version.h"
#include "server/model_repository.h"

namespace spillway::server {

using OneShotPtr = std::shared_ptr<const ServedOneShot>;
using LanguagePtr = std::shared_ptr<ServedModel>;

struct CatalogueEntry {
  std::string name;
  std::string version;
  std::string state;   // Triton's words: "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
  std::string reason;  // why it is not ready
};

class ModelCatalogue {
 public:
  virtual ~ModelCatalogue() = default;

  // The ready model of that name or alias; an empty version is the newest. Null: not there or not ready. Each counts as
  // a use, which keeps a model from being evicted as idle.
  virtual OneShotPtr find(std::string_view name, std::string_view version) const = 0;
  virtual LanguagePtr find_language(std::string_view name) const = 0;

  // As find; an evicted model is brought back first, for which the request waits until then at most. done is called
  // once, at once or on another thread; kNotFound is a name that no model of that kind has, and all else a reason why
  // it does not answer now.
  using Found = std::function<void(Result<OneShotPtr>)>;
  using LanguageFound = std::function<void(Result<LanguagePtr>)>;
  virtual void acquire(std::string_view name, std::string_view version, TimePoint until, Found done) = 0;
  virtual void acquire_language(std::string_view name, TimePoint until, LanguageFound done) = 0;

  virtual bool contains(std::string_view name) const = 0;  // known, ready or not
  virtual bool is_ready(std::string_view name, std::string_view version) const = 0;
  virtual ModelKind kind(std::string_view name) const = 0;
  virtual double load_seconds(std::string_view name) const = 0;  // that the last load took; 0: none did

  virtual std::vector<OneShotPtr> ready() const = 0;       // the newest of each
  virtual std::vector<LanguagePtr> languages() const = 0;  // that are ready
  virtual std::vector<ListedModel> listed() const = 0;     // of either kind, ready or evicted
  virtual std::vector<CatalogueEntry> index() const = 0;   // every known version
  virtual Status load(std::string_view name) = 0;          // blocks
  virtual Status unload(std::string_view name) = 0;        // blocks
};

// Models that are there from the start and stay.
class FixedCatalogue final : public ModelCatalogue {
 public:
  explicit FixedCatalogue(std::vector<LanguagePtr> languages, std::vector<OneShotPtr> models = {})
      : languages_(std::move(languages)), models_(std::move(models)) {}

  OneShotPtr find(std::string_view name, std::string_view version) const override;
  LanguagePtr find_language(std::string_view name) const override;
  void acquire(std::string_view name, std::string_view version, TimePoint until, Found done) override;
  void acquire_language(std::string_view name, TimePoint until, LanguageFound done) override;
  bool contains(std::string_view name) const override { return kind(name) != ModelKind::kUnknown; }
  bool is_ready(std::string_view name, std::string_view version) const override;
  ModelKind kind(std::string_view name) const override;
  double load_seconds(std::string_view) const override { return 0; }
  std::vector<OneShotPtr> ready() const override { return models_; }
  std::vector<LanguagePtr> languages() const override { return languages_; }
  std::vector<ListedModel> listed() const override;
  std::vector<CatalogueEntry> index() const override;
  Status load(std::string_view name) override;
  Status unload(std::string_view name) override;

 private:
  const std::vector<LanguagePtr> languages_;
  const std::vector<OneShotPtr> models_;
};

}  // namespace spillway::server
