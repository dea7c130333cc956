#include "kv/prefix_tree.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "kv/block_hash.h"

namespace spillway::kv {

PrefixTree::PrefixTree(PagePool& pool, int page_tokens)
    : pool_(pool), page_tokens_(page_tokens), node_of_page_(pool.pages_total(), kNone) {}

PrefixTree::NodeId PrefixTree::find(NodeId parent, uint64_t salt, std::span<const int32_t> block) const {
  const uint64_t key = hash_block(mix(static_cast<uint64_t>(parent) ^ mix(salt)), block);
  const auto [begin, end] = by_key_.equal_range(key);
  for (auto it = begin; it != end; ++it) {
    const Node& node = nodes_[it->second];
    if (node.parent == parent && node.salt == salt && std::ranges::equal(node.tokens, block)) return it->second;
  }
  return kNone;
}

PrefixTree::Match PrefixTree::match(std::span<const int32_t> tokens, int pages_max, uint64_t salt) const {
  const int pages = std::min<int>(pages_max, static_cast<int>(tokens.size()) / page_tokens_);
  Match match;
  NodeId node = kRoot;
  while (match.pages < pages) {
    node = find(node, salt, block(tokens, match.pages));
    if (node == kNone) break;
    ++match.pages;
    if (nodes_[node].idle) ++match.idle_pages;
  }
  return match;
}

int PrefixTree::acquire(std::span<const int32_t> tokens, int pages_max, std::vector<PageId>& pages, uint64_t salt) {
  const int limit = std::min<int>(pages_max, static_cast<int>(tokens.size()) / page_tokens_);
  NodeId node = kRoot;
  int count = 0;
  for (; count < limit; ++count) {
    node = find(node, salt, block(tokens, count));
    if (node == kNone) break;
    if (nodes_[node].idle) unlink(node);
    pool_.retain(nodes_[node].page);
    pages.push_back(nodes_[node].page);
  }
  return count;
}

PrefixTree::NodeId PrefixTree::walk(std::span<const int32_t> tokens, int pages, uint64_t salt) const {
  NodeId node = kRoot;
  for (int page = 0; page < pages && node != kNone; ++page) node = find(node, salt, block(tokens, page));
  return node;
}

void PrefixTree::insert(std::span<const int32_t> tokens, std::span<PageId> pages, int first, uint64_t salt) {
  const int count = std::min(static_cast<int>(tokens.size()) / page_tokens_, static_cast<int>(pages.size()));
  if (first >= count) return;
  // The page before the first is in the tree, as long as the sequence holds it: no walk from the root.
  NodeId parent = first == 0 ? kRoot : node_of_page_[pages[first - 1]];
  if (parent == kNone) {
    parent = walk(tokens, first, salt);
    if (parent == kNone) return;
  }
  for (int page = first; page < count; ++page) {
    NodeId node = find(parent, salt, block(tokens, page));
    if (node == kNone) {
      node = add(parent, salt, block(tokens, page), pages[page]);
    } else if (nodes_[node].page != pages[page]) {
      if (nodes_[node].idle) unlink(node);
      pool_.retain(nodes_[node].page);
      pool_.release(pages[page]);
      pages[page] = nodes_[node].page;
    }
    parent = node;
  }
}

void PrefixTree::release(std::span<const PageId> pages) {
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
    pool_.release(*page);
    const NodeId node = node_of_page_[*page];
    if (node != kNone && pool_.references(*page) == 1) link_newest(node);
  }
}

int PrefixTree::reclaim(int pages) {
  int freed = 0;
  for (; freed < pages && oldest_ != kNone; ++freed) {
    const NodeId node = oldest_;
    SW_CHECK(nodes_[node].children == 0, "a page was let go before the pages that follow it");
    unlink(node);
    pool_.release(nodes_[node].page);
    remove(node);
  }
  return freed;
}

PrefixTree::NodeId PrefixTree::add(NodeId parent, uint64_t salt, std::span<const int32_t> block, PageId page) {
  NodeId id;
  if (nodes_free_.empty()) {
    id = static_cast<NodeId>(nodes_.size());
    nodes_.emplace_back();
  } else {
    id = nodes_free_.back();
    nodes_free_.pop_back();
  }
  Node& node = nodes_[id];
  node.parent = parent;
  node.salt = salt;
  node.key = hash_block(mix(static_cast<uint64_t>(parent) ^ mix(salt)), block);
  node.page = page;
  node.children = 0;
  node.tokens.assign(block.begin(), block.end());
  by_key_.emplace(node.key, id);
  node_of_page_[page] = id;
  pool_.retain(page);
  if (parent != kRoot) ++nodes_[parent].children;
  ++nodes_used_;
  return id;
}

void PrefixTree::remove(NodeId id) {
  Node& node = nodes_[id];
  const auto [begin, end] = by_key_.equal_range(node.key);
  for (auto it = begin; it != end; ++it) {
    if (it->second == id) {
      by_key_.erase(it);
      break;
    }
  }
  if (node.parent != kRoot) --nodes_[node.parent].children;
  node_of_page_[node.page] = kNone;
  node.page = kNoPage;
  node.parent = kNone;
  nodes_free_.push_back(id);
  --nodes_used_;
}

void PrefixTree::link_newest(NodeId id) {
  Node& node = nodes_[id];
  node.idle = true;
  node.older = newest_;
  node.newer = kNone;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = id;
  newest_ = id;
  ++reclaimable_;
}

void PrefixTree::unlink(NodeId id) {
  Node& node = nodes_[id];
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
  node.idle = false;
  node.older = node.newer = kNone;
  --reclaimable_;
}

void PrefixTree::append_held(std::vector<PageId>& held) const {
  for (const Node& node : nodes_) {
    if (node.page != kNoPage) held.push_back(node.page);
  }
}

Status PrefixTree::check() const {
  std::vector<int> children(nodes_.size(), 0);
  int used = 0, idle = 0;
  for (const Node& node : nodes_) {
    if (node.page == kNoPage) continue;
    ++used;
    idle += node.idle;
    if (node.parent != kRoot) ++children[node.parent];
    if (node.idle != (pool_.references(node.page) == 1)) {
      return corrupt(fmt::format("page {}: {} references, yet {}idle", node.page, pool_.references(node.page),
                                 node.idle ? "" : "not "));
    }
    if (node.parent != kRoot && nodes_[node.parent].idle && !node.idle) {
      return corrupt(fmt::format("page {}: in use below an idle page", node.page));
    }
  }
  for (size_t id = 0; id < nodes_.size(); ++id) {
    if (nodes_[id].page != kNoPage && children[id] != nodes_[id].children) {
      return corrupt(fmt::format("node {}: expected {} children, found {}", id, children[id], nodes_[id].children));
    }
  }
  int listed = 0;
  for (NodeId id = oldest_; id != kNone; id = nodes_[id].newer) ++listed;
  if (used != nodes_used_ || idle != reclaimable_ || listed != idle) {
    return corrupt(fmt::format("expected {} pages, {} idle, found {} and {} ({} in order)", used, idle, nodes_used_,
                               reclaimable_, listed));
  }
  return {};
}

PrefixSummary PrefixTree::summary() const {
  PrefixSummary out;
  out.pages = nodes_used_;
  out.idle = reclaimable_;
  struct Place {
    NodeId root = kNone;
    int depth = 0;
  };
  std::vector<Place> places(nodes_.size());  // each node's is found once, so that long chains cost no more
  std::vector<NodeId> path;
  std::unordered_map<NodeId, PrefixSummary::Root> roots;
  for (NodeId id = 0; id < static_cast<NodeId>(nodes_.size()); ++id) {
    const Node& node = nodes_[id];
    if (node.page == kNoPage) continue;
    path.clear();
    NodeId at = id;
    while (at != kRoot && places[at].depth == 0) {
      path.push_back(at);
      at = nodes_[at].parent;
    }
    Place above = at == kRoot ? Place{path.empty() ? id : path.back(), 0} : places[at];
    for (; !path.empty(); path.pop_back()) places[path.back()] = above = {above.root, above.depth + 1};
    out.leaves += node.children == 0;
    out.forks += node.children > 1;
    PrefixSummary::Root& root = roots[places[id].root];
    ++root.pages;
    root.idle += node.idle;
    root.leaves += node.children == 0;
    root.depth = std::max(root.depth, places[id].depth);
    out.depth_max = std::max(out.depth_max, places[id].depth);
  }
  out.roots = static_cast<int>(roots.size());
  for (const auto& [id, root] : roots) out.largest.push_back(root);
  std::ranges::sort(out.largest, std::greater(), &PrefixSummary::Root::pages);
  if (out.largest.size() > PrefixSummary::kLargest) out.largest.resize(PrefixSummary::kLargest);
  return out;
}

}  // namespace spillway::kv
