// Cache: the page pool and the prefix tree as one, and BlockTable, the pages of one sequence. When the pool is empty,
// idle cached pages are reclaimed. Owned by the engine's state, on its thread. The bytes of the pages are not its job.
#pragma once

#include <span>
#include <vector>

#include "kv/page_pool.h"
#include "kv/prefix_tree.h"

namespace spillway::kv {

// The pages of a sequence in order, with a reference to each. Filled and emptied through the Cache.
struct BlockTable {
  std::vector<PageId> pages;
  int shared = 0;  // pages that have been offered to, or came from, the prefix tree
};

inline int pages_for(int64_t tokens, int page_tokens) {
  return static_cast<int>((tokens + page_tokens - 1) / page_tokens);
}

// What a page is used for, in rising order of interest.
enum class PageUse : uint8_t { kFree, kCached, kUsed, kShared };

class Cache {
 public:
  // share: whether prefixes are kept for others at all.
  Cache(int pages, int page_tokens, bool share)
      : page_tokens_(page_tokens), share_(share), pool_(pages), tree_(pool_, page_tokens) {}

  int page_tokens() const { return page_tokens_; }
  int pages_total() const { return pool_.pages_total(); }
  int pages_free() const { return pool_.pages_free(); }
  int pages_idle() const { return tree_.reclaimable(); }
  int pages_available() const { return pool_.pages_free() + tree_.reclaimable(); }

  PrefixTree::Match match(std::span<const int32_t> tokens, int pages_max, uint64_t salt) const;
  // Takes the cached prefix into an empty table; gives its tokens.
  int acquire_prefix(std::span<const int32_t> tokens, int pages_max, uint64_t salt, BlockTable& table);
  // Grows the table to hold `tokens` tokens; false, and nothing changed, when the pages are not there.
  bool grow(BlockTable& table, int64_t tokens);
  // Offers the pages that tokens (all computed) fill.
  void share(BlockTable& table, std::span<const int32_t> tokens, uint64_t salt);
  void release(BlockTable& table);

  // Pages that become available when this table alone is released.
  int freed_by(const BlockTable& table) const;

  // For those who look on.
  PageUse use_of(PageId page) const;
  PrefixSummary prefixes() const { return tree_.summary(); }

  // Every reference accounted for, tables being all live ones.
  Status check(std::span<const BlockTable* const> tables) const;

 private:
  const int page_tokens_;
  const bool share_;
  PagePool pool_;
  PrefixTree tree_;
};

}  // namespace spillway::kv
