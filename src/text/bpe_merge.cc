#include "text/bpe_merge.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <queue>

namespace spillway::text {

namespace {
constexpr size_t kShort = 32;  // up to here a scan for the lowest rank beats a heap

uint64_t pair_of(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
}  // namespace

void MergeTable::reserve(size_t merges) { grow(std::bit_ceil(merges + merges / 2 + 16)); }

size_t MergeTable::slot_of(uint64_t pair) const {
  const size_t mask = slots_.size() - 1;
  const auto product = static_cast<unsigned __int128>(pair) * 0x9E3779B97F4A7C15ull;
  for (size_t at = (uint64_t(product) ^ uint64_t(product >> 64)) & mask;; at = (at + 1) & mask) {
    if (slots_[at].pair == pair || slots_[at].pair == kEmpty) return at;
  }
}

void MergeTable::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.pair != kEmpty) slots_[slot_of(slot.pair)] = slot;
  }
}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  if ((count_ + 1) * 3 > slots_.size() * 2) grow(std::bit_ceil(count_ * 2 + 16));
  Slot& slot = slots_[slot_of(pair_of(left, right))];
  count_ += slot.pair == kEmpty;
  slot = {pair_of(left, right), merge};
}

MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  if (slots_.empty()) return {};
  return slots_[slot_of(pair_of(left, right))].merge;
}

void MergeTable::apply(std::vector<int32_t>& ids, size_t begin) const {
  const size_t count = ids.size() - begin;
  if (count < 2) return;
  if (count <= kShort) return apply_short(ids, begin);
  apply_long(ids, begin);
}

void MergeTable::apply_short(std::vector<int32_t>& ids, size_t begin) const {
  int32_t* const symbols = ids.data() + begin;
  size_t count = ids.size() - begin;
  std::array<Merge, kShort> merges;  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == UINT32_MAX) break;
    symbols[best] = merges[best].id;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    if (best + 2 < count) std::copy(merges.begin() + best + 2, merges.begin() + count - 1, merges.begin() + best + 1);
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  ids.resize(begin + count);
}

void MergeTable::apply_long(std::vector<int32_t>& ids, size_t begin) const {
  struct Node {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : at > other.at; }
  };
  const auto count = int32_t(ids.size() - begin);
  std::vector<Node> nodes(static_cast<size_t>(count));
  std::vector<Candidate> heap;
  const auto merge_at = [&](int32_t at) {
    const int32_t next = nodes[size_t(at)].next;
    return next < 0 ? Merge{} : find(nodes[size_t(at)].id, nodes[size_t(next)].id);
  };
  for (int32_t i = 0; i < count; ++i) nodes[size_t(i)] = {ids[begin + size_t(i)], i - 1, i + 1 < count ? i + 1 : -1};
  for (int32_t i = 0; i < count; ++i) {
    if (const Merge merge = merge_at(i); merge.rank != UINT32_MAX) heap.push_back({merge.rank, i});
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>(), std::move(heap));
  const auto offer = [&](int32_t at) {
    if (at < 0) return;
    if (const Merge merge = merge_at(at); merge.rank != UINT32_MAX) queue.push({merge.rank, at});
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& left = nodes[size_t(top.at)];
    if (left.id < 0) continue;  // merged away since it was offered
    const Merge merge = merge_at(top.at);
    if (merge.rank != top.rank) continue;
    Node& right = nodes[size_t(left.next)];
    left.id = merge.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) nodes[size_t(left.next)].previous = top.at;
    offer(left.previous);
    offer(top.at);
  }
  ids.resize(begin);
  for (int32_t at = 0; at >= 0; at = nodes[size_t(at)].next) ids.push_back(nodes[size_t(at)].id);
}

}  // namespace spillway::text
