// Constrained output: a grammar over bytes (any JSON value, a JSON schema, a tool call) compiled against a tokenizer's
// vocabulary, so that each step masks the tokens that would leave it. The output always parses and conforms, unless it
// is cut by max_tokens.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace spillway::text {

// The vocabulary as a byte trie: built once a tokenizer and shared by all constraints. Immutable; any thread.
class TokenTrie {
 public:
  static std::shared_ptr<const TokenTrie> build(const Tokenizer& tokenizer, int vocab_size, std::vector<int32_t> end_tokens);
  virtual ~TokenTrie() = default;
};

// Immutable; any thread.
class Grammar {
 public:
  static Result<std::shared_ptr<const Grammar>> json_object();                             // response_format json_object
  static Result<std::shared_ptr<const Grammar>> json_schema(const boost::json::value& schema);  // errors name the keyword
  // One or more tool calls in the given style; tools as in the API's "tools".
  virtual ~Grammar() = default;
};

// The mask of one sequence. Same contract as engine::TokenConstraint, which server/ adapts it to (text knows no engine).
class GrammarState {
 public:
  static std::unique_ptr<GrammarState> start(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);
  virtual ~GrammarState() = default;
  virtual void allowed(std::span<uint64_t> words) = 0;
  virtual void accept(int32_t token) = 0;
  virtual std::unique_ptr<GrammarState> clone() const = 0;
};

}  // namespace spillway::text
