// TokenModel: the "model" of tokenizer.json: turns one piece of text into ids. Immutable; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

class JsonAt;
struct BulkParts;

class TokenModel {
 public:
  // parts: the vocabulary and the merges, which `at` lacks. byte_level: pieces are bytes, the vocabulary is written in
  // GPT-2's alphabet.
  static Result<std::unique_ptr<const TokenModel>> parse(const JsonAt& at, const BulkParts& parts, bool byte_level);
  virtual ~TokenModel() = default;

  virtual void encode(std::string_view piece, std::vector<int32_t>& out) const = 0;
  virtual int32_t id_of(std::string_view token) const = 0;  // the token as the file writes it; -1 when absent
  virtual std::string_view token(int32_t id) const = 0;     // as bytes when byte_level; empty when absent
  virtual int32_t size() const = 0;                         // highest id + 1
};

// Whole pieces map to ids, or to the unknown token.
Result<std::unique_ptr<const TokenModel>> parse_word_level(const JsonAt& at, const BulkParts& parts);
Result<std::unique_ptr<const TokenModel>> parse_word_piece(const JsonAt& at, const BulkParts& parts);
Result<std::unique_ptr<const TokenModel>> parse_bpe(const JsonAt& at, const BulkParts& parts, bool byte_level);

}  // namespace spillway::text
