// PagePool: which pages of the KV cache are in use, by reference count. Integers only: the bytes live in nn::KvStorage.
// Owned by the engine's state, on its thread. Which tokens a page holds is not its job.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace spillway::kv {

using PageId = int32_t;
constexpr PageId kNoPage = -1;

class PagePool {
 public:
  explicit PagePool(int pages);

  int pages_total() const { return static_cast<int>(references_.size()); }
  int pages_free() const { return static_cast<int>(free_.size()); }
  int references(PageId page) const { return references_[page]; }

  // A page with one reference, or kNoPage when all are in use. The page freed last comes first (its bytes may be warm).
  PageId allocate();
  void retain(PageId page);
  // Drops one reference; the page is free when the last has gone. Releasing a free page is a bug and aborts.
  void release(PageId page);

  // Whether the pool agrees with its owners: `held` is every reference they hold, a page listed once a reference. Finds
  // leaks, lost references and pages that are free and used at once.
  Status check(std::span<const PageId> held) const;

 private:
  std::vector<int32_t> references_;
  std::vector<PageId> free_;
};

}  // namespace spillway::kv
