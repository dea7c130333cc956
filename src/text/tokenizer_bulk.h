// The two big parts of a tokenizer.json, model.vocab and model.merges: cut out of the document and read directly,
// because a general JSON tree of 150,000 tokens takes longer to build than everything else at start. Views of the
// document.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::text {

struct BulkParts {
  std::string rest;         // the document with null where the two were
  std::string_view vocab;   // "{...}" or empty: not found, the document is left whole
  std::string_view merges;  // "[...]" or empty
};

// Never fails: where the document is not as expected, the parts stay in `rest` for the JSON parser to complain about.
BulkParts cut_bulk_parts(std::string_view document);

// Calls token(text, id) for each member; the text is valid for the call. text is valid UTF-8 throughout.
using OnToken = std::function<Status(std::string_view token, int64_t id)>;
Status read_vocab(std::string_view object, const std::string& path, const OnToken& token);

// The error of a vocabulary entry: an id that is out of range or taken, or a token that comes twice.
Error wrong_token_id(const std::string& path, std::string_view token, int64_t id);

// Calls merge(left, right, index) for each "left right" or ["left", "right"].
using OnMerge = std::function<Status(std::string_view left, std::string_view right, uint32_t index)>;
Status read_merges(std::string_view array, const std::string& path, const OnMerge& merge);

}  // namespace spillway::text
