// Constrained output: a grammar over bytes (any JSON value, a JSON schema, a tool call) compiled against a tokenizer's
// vocabulary, so that each step masks the tokens that would leave it. The output always parses and conforms, unless it
// is cut by max_tokens.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/output_parser.h"
#include "text/tokenizer.h"

namespace spillway::text {

// The vocabulary as a byte trie: built once a tokenizer and shared by all constraints. Immutable; any thread.
class TokenTrie {
 public:
  // Tokens at or beyond vocab_size are left out. Special tokens fit a grammar's markers alone, never the inside of a
  // string. At least one end token.
  static std::shared_ptr<const TokenTrie> build(const Tokenizer& tokenizer, int vocab_size,
                                                std::vector<int32_t> end_tokens);
  virtual ~TokenTrie() = default;
};

// Immutable to its users; any thread (what states learn about it is shared under a lock, so keep a grammar for equal
// requests). The language is a part of what the schema allows: json_schema.h says which.
class Grammar {
 public:
  static Result<std::shared_ptr<const Grammar>> json_object();  // response_format json_object
  static Result<std::shared_ptr<const Grammar>> json_value();   // any JSON value
  static Result<std::shared_ptr<const Grammar>> json_schema(
      const boost::json::value& schema);  // errors name the keyword

  struct ToolOptions {
    std::string name;      // the only tool allowed; empty: any
    bool parallel = true;  // more calls than one
    bool required = true;  // false: any text, and calls, if there are some, as the tools that are "strict" have it
  };
  // Tool calls in the given style, at least one where they are required; tools as in the API's "tools".
  static Result<std::shared_ptr<const Grammar>> tool_calls(ToolStyle style, const boost::json::value& tools,
                                                           const ToolOptions& options);

  // Anything but end tokens up to and with the first `marker` ("</think>"), a few line breaks, then the grammar.
  static std::shared_ptr<const Grammar> after_marker(const std::shared_ptr<const Grammar>& grammar,
                                                     std::string_view marker);

  virtual ~Grammar() = default;
  virtual bool matches(std::string_view text) const = 0;  // whether the whole text is in the language
};

// The mask of one sequence. Same contract as engine::TokenConstraint, which server/ adapts it to (text knows no
// engine).
class GrammarState {
 public:
  static std::unique_ptr<GrammarState> start(std::shared_ptr<const Grammar> grammar,
                                             std::shared_ptr<const TokenTrie> trie);
  virtual ~GrammarState() = default;
  virtual void allowed(
      std::span<uint64_t> words) = 0;      // sets bit t % 64 of word t / 64 for each allowed token, clears the rest
  virtual void accept(int32_t token) = 0;  // one that was allowed
  virtual bool complete() const = 0;       // end tokens are allowed now
  virtual std::unique_ptr<GrammarState> clone() const = 0;
};

}  // namespace spillway::text
