// Normalizer: the "normalizer" of tokenizer.json: rewrites text before it is split. Immutable; any thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"

namespace spillway::text {

class JsonAt;

class Normalizer {
 public:
  static Result<std::unique_ptr<const Normalizer>> parse(const JsonAt& at);
  virtual ~Normalizer() = default;

  virtual void apply(std::string& text) const = 0;  // text is valid UTF-8 and stays so
};

}  // namespace spillway::text
