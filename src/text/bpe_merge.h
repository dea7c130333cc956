// The merges of byte-pair encoding and how they are applied. Filled by one thread, then immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace spillway::text {

class MergeTable {
 public:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // lower is earlier; UINT32_MAX: no such merge
    int32_t id = -1;             // what the pair becomes
  };

  void reserve(size_t merges);
  void add(int32_t left, int32_t right, Merge merge);  // a pair that is there already takes the later rank
  Merge find(int32_t left, int32_t right) const;

  // Merges the ids in place until no pair is in the table: lowest rank first, leftmost first.
  void apply(std::vector<int32_t>& ids, size_t begin) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;

  size_t slot_of(uint64_t pair) const;
  void grow(size_t slots);
  void apply_short(std::vector<int32_t>& ids, size_t begin) const;
  void apply_long(std::vector<int32_t>& ids, size_t begin) const;

  std::vector<Slot> slots_;  // a power of two
  size_t count_ = 0;
};

}  // namespace spillway::text
