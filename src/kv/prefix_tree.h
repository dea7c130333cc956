// PrefixTree: which token prefixes have their keys and values in pages already. A tree of full pages: a node is one
// page of tokens below the node of the page before it. The tree holds one reference to each of its pages; sequences
// that share a page hold their own. Pages that only the tree holds are reclaimed in order of last use, leaves first.
// Owned by the engine's state, on its thread. Integers only.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/page_pool.h"

namespace spillway::kv {

// The tree in a few numbers, for those who look on.
struct PrefixSummary {
  int pages = 0;
  int idle = 0;   // held by the tree alone
  int roots = 0;  // prefixes that have nothing in common
  int leaves = 0;
  int forks = 0;      // pages after which prefixes part
  int depth_max = 0;  // pages of the longest
  struct Root {
    int pages = 0, idle = 0, leaves = 0, depth = 0;
  };
  static constexpr size_t kLargest = 12;
  std::vector<Root> largest;  // by pages, at most kLargest
};

class PrefixTree {
 public:
  // The pool must outlive the tree.
  PrefixTree(PagePool& pool, int page_tokens);

  struct Match {
    int pages = 0;       // full pages of the prefix that are cached
    int idle_pages = 0;  // of them, held by the tree alone: taking them lowers reclaimable()
  };
  // How much of tokens is cached in this name space (salt), at most pages_max pages. Changes nothing.
  Match match(std::span<const int32_t> tokens, int pages_max, uint64_t salt = 0) const;

  // Appends the pages of the longest cached prefix to `pages`, with a reference each for the caller. Gives its length
  // in pages.
  int acquire(std::span<const int32_t> tokens, int pages_max, std::vector<PageId>& pages, uint64_t salt = 0);

  // Offers the full pages of a sequence from page `first` on, pages before it being offered or acquired already. Where
  // the tree has a page with the same prefix, the caller's reference moves to that page (pages[i] is replaced), so that
  // a sequence below a cached page always holds it.
  void insert(std::span<const int32_t> tokens, std::span<PageId> pages, int first, uint64_t salt = 0);

  // Drops a sequence's references, the last page first.
  void release(std::span<const PageId> pages);

  // Frees up to `pages` pages that only the tree holds; gives how many.
  int reclaim(int pages);
  void clear() { reclaim(reclaimable_); }

  bool contains(PageId page) const { return node_of_page_[page] != kNone; }
  int pages_cached() const { return nodes_used_; }  // in the tree
  int reclaimable() const { return reclaimable_; }  // of them, held by the tree alone
  PrefixSummary summary() const;
  // Appends every page of the tree, for PagePool::check.
  void append_held(std::vector<PageId>& held) const;
  // Whether links, counts and the order of reclaiming are consistent.
  Status check() const;

 private:
  using NodeId = int32_t;
  static constexpr NodeId kRoot = -1;
  static constexpr NodeId kNone = -2;

  struct Node {
    NodeId parent = kNone;
    uint64_t key = 0;
    uint64_t salt = 0;
    PageId page = kNoPage;
    int children = 0;
    bool idle = false;  // in the list below
    NodeId older = kNone, newer = kNone;
    std::vector<int32_t> tokens;
  };

  NodeId find(NodeId parent, uint64_t salt, std::span<const int32_t> block) const;
  NodeId walk(std::span<const int32_t> tokens, int pages, uint64_t salt) const;
  NodeId add(NodeId parent, uint64_t salt, std::span<const int32_t> block, PageId page);
  void remove(NodeId id);
  void link_newest(NodeId id);
  void unlink(NodeId id);
  std::span<const int32_t> block(std::span<const int32_t> tokens, int page) const {
    return tokens.subspan(static_cast<size_t>(page) * page_tokens_, page_tokens_);
  }

  PagePool& pool_;
  const int page_tokens_;
  std::vector<Node> nodes_;
  std::vector<NodeId> nodes_free_;
  std::unordered_multimap<uint64_t, NodeId> by_key_;  // hash of parent, salt and tokens
  std::vector<NodeId> node_of_page_;
  NodeId oldest_ = kNone, newest_ = kNone;
  int nodes_used_ = 0;
  int reclaimable_ = 0;
};

}  // namespace spillway::kv
