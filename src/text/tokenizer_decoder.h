// TokenDecoder: the "decoder" of tokenizer.json, token by token, so that a whole decode and a stream give the same
// text. Immutable; any thread.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_pattern.h"

namespace spillway::text {

class JsonAt;

class TokenDecoder {
 public:
  TokenDecoder() { steps_.push_back(JoinBySpace{}); }  // tokens joined by spaces
  static Result<TokenDecoder> parse(const JsonAt& at);
  static TokenDecoder byte_level();  // the tokens are bytes: joined as they are

  bool is_byte_level() const { return byte_level_; }   // it expects the bytes of byte-level tokens
  bool is_identity() const { return steps_.empty(); }  // decode() gives the token back as it is

  // The bytes of one token, at the start of an output or within it.
  std::string decode(std::string_view token, bool first) const;

 private:
  struct WordPiece {
    std::string prefix;
    bool cleanup;
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct ByteFallback {};
  struct StripLeft {
    std::string content;
    int64_t count;
    bool each_token;  // else at the start of the output alone
  };
  struct Metaspace {
    std::string replacement;
    bool drop_first;
  };
  struct JoinBySpace {};
  using Step = std::variant<WordPiece, Replace, ByteFallback, StripLeft, Metaspace, JoinBySpace>;

  Status add_steps(const JsonAt& at, bool& fused);
  static void run(const WordPiece& step, bool first, std::string& token);
  static void run(const Replace& step, bool first, std::string& token);
  static void run(const ByteFallback& step, bool first, std::string& token);
  static void run(const StripLeft& step, bool first, std::string& token);
  static void run(const Metaspace& step, bool first, std::string& token);
  static void run(const JoinBySpace& step, bool first, std::string& token);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace spillway::text
