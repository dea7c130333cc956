// PreTokenizer: the "pre_tokenizer" of tokenizer.json: splits normalised text into the pieces that the model encodes
// one by one. Byte-level pieces stay raw bytes: the vocabulary is translated instead, once. Immutable; any thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

class JsonAt;

struct Pieces {
  std::vector<std::string_view> items;  // never empty ones
  bool at_start = true;                 // items[0] begins where the user's text begins
  std::deque<std::string> storage;      // what rewritten pieces point into
};

class PreTokenizer {
 public:
  // byte_level is set when a ByteLevel step is there.
  static Result<std::unique_ptr<const PreTokenizer>> parse(const JsonAt& at, bool& byte_level);
  virtual ~PreTokenizer() = default;

  virtual void apply(Pieces& pieces) const = 0;
};

}  // namespace spillway::text
