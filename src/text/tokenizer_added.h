// AddedTokens: the "added_tokens" of tokenizer.json: found in text before anything else looks at it. Filled while
// loading, then immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace spillway::text {

class JsonAt;
class Normalizer;

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in normalised text
  bool special = false;
};

Result<std::vector<AddedToken>> parse_added_tokens(const JsonAt& root);

// A part of a text: an added token, or what lies between them.
struct Segment {
  std::string_view text;
  int32_t id = -1;  // -1: text
};

// Finds a set of tokens, the longest at the leftmost place.
class AddedTokenMatcher {
 public:
  // content: how the token is written where it is looked for.
  void add(const AddedToken& token, std::string_view content);
  bool empty() const { return tokens_.empty(); }
  void split(std::string_view text, std::vector<Segment>& out) const;

 private:
  struct Node {
    int32_t token = -1;  // index of tokens_
    std::vector<std::pair<char, int32_t>> next;
  };
  int32_t child(int32_t node, char byte) const;  // -1 when there is none
  int32_t longest_at(std::string_view text, size_t at, size_t& end) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = {Node{}};
  std::array<bool, 256> starts_{};
};

}  // namespace spillway::text
