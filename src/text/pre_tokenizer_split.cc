#include "text/pre_tokenizer_split.h"

#include <algorithm>

#include "text/tokenizer_json.h"

namespace spillway::text {

Result<SplitBehavior> parse_split_behavior(const JsonAt& at) {
  SW_ASSIGN(const std::string name, at.string("behavior"));
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return at.wrong("behavior", "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

namespace {

// A match joins its neighbour on one side unless that neighbour is a match too. Ranges come in the order of the walk.
template <class Iterator>
std::vector<SplitRange> merge_towards(Iterator first, Iterator last) {
  std::vector<SplitRange> merged;
  bool previous_match = false;
  for (; first != last; ++first) {
    if (first->match && !previous_match && !merged.empty()) {
      merged.back().begin = std::min(merged.back().begin, first->begin);
      merged.back().end = std::max(merged.back().end, first->end);
    } else {
      merged.push_back(*first);
    }
    previous_match = first->match;
  }
  return merged;
}

}  // namespace

void append_pieces(std::string_view text, const std::vector<SplitRange>& ranges, SplitBehavior behavior,
                   std::vector<std::string_view>& out) {
  const auto push = [&](const SplitRange& range) { out.push_back(text.substr(range.begin, range.end - range.begin)); };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const SplitRange& range : ranges) push(range);
      return;
    case SplitBehavior::kRemoved:
      for (const SplitRange& range : ranges) {
        if (!range.match) push(range);
      }
      return;
    case SplitBehavior::kMergedWithPrevious:
      for (const SplitRange& range : merge_towards(ranges.begin(), ranges.end())) push(range);
      return;
    case SplitBehavior::kMergedWithNext: {
      const auto merged = merge_towards(ranges.rbegin(), ranges.rend());
      for (auto it = merged.rbegin(); it != merged.rend(); ++it) push(*it);
      return;
    }
    case SplitBehavior::kContiguous:
      for (size_t i = 0; i < ranges.size();) {
        SplitRange run = ranges[i];
        while (++i < ranges.size() && ranges[i].match == run.match) run.end = ranges[i].end;
        push(run);
      }
      return;
  }
}

}  // namespace spillway::text
