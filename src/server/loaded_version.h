// LoadedVersion: one version of a model that is in memory, a language model or a one-shot model. Whoever answers a
// request holds it; the repository frees it when nobody does. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/served_model.h"
#include "server/served_one_shot.h"

namespace spillway::server {

struct LoadedVersion {
  std::string name;
  std::string version;
  std::shared_ptr<ServedModel> language;
  std::shared_ptr<ServedOneShot> one_shot;
  int64_t bytes = 0;  // of memory that it was accounted for

  int64_t created() const { return language ? language->created() : one_shot->created(); }
  // Of an input, or of prompt and output; 0: it takes no tokens.
  int tokens_max() const {
    if (language) return language->context_tokens_max();
    return one_shot->text() != nullptr ? one_shot->text()->tokens_max() : 0;
  }
};
using VersionPtr = std::shared_ptr<const LoadedVersion>;

}  // namespace spillway::server
