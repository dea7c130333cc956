// How a text falls into pieces around matches: the split behaviours of tokenizer.json.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_regex.h"

namespace spillway::text {

class JsonAt;

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<SplitBehavior> parse_split_behavior(const JsonAt& at);

struct SplitRange {
  size_t begin;
  size_t end;
  bool match;
};

// Covers text[0, size) with ranges, matches (from find(from, match)) and what lies between them.
template <class Find>
void cover(size_t size, Find find, std::vector<SplitRange>& out) {
  out.clear();
  size_t done = 0;
  for (Regex::Match match; done < size && find(done, match); done = match.end) {
    if (match.begin > done) out.push_back({done, match.begin, false});
    out.push_back({match.begin, match.end, true});
  }
  if (done < size) out.push_back({done, size, false});
}

// Appends the pieces of text that the behaviour makes of the ranges.
void append_pieces(std::string_view text, const std::vector<SplitRange>& ranges, SplitBehavior behavior,
                   std::vector<std::string_view>& out);

}  // namespace spillway::text
