#include "kv/page_pool.h"

#include <fmt/format.h>

#include "base/check.h"

namespace spillway::kv {

PagePool::PagePool(int pages) : references_(pages, 0) {
  free_.reserve(pages);
  for (PageId page = pages - 1; page >= 0; --page) free_.push_back(page);
}

PageId PagePool::allocate() {
  if (free_.empty()) return kNoPage;
  const PageId page = free_.back();
  free_.pop_back();
  references_[page] = 1;
  return page;
}

void PagePool::retain(PageId page) {
  SW_CHECK(references_[page] > 0, "a free page cannot be retained");
  ++references_[page];
}

void PagePool::release(PageId page) {
  SW_CHECK(references_[page] > 0, "the page was released more often than retained");
  if (--references_[page] == 0) free_.push_back(page);
}

Status PagePool::check(std::span<const PageId> held) const {
  std::vector<int32_t> expected(references_.size(), 0);
  for (const PageId page : held) {
    if (page < 0 || page >= pages_total())
      return corrupt(fmt::format("page {}: expected 0 to {}", page, pages_total() - 1));
    ++expected[page];
  }
  std::vector<bool> seen(references_.size(), false);
  for (const PageId page : free_) {
    if (seen[page]) return corrupt(fmt::format("page {}: expected once in the free list, found twice", page));
    seen[page] = true;
  }
  for (PageId page = 0; page < pages_total(); ++page) {
    if (references_[page] != expected[page]) {
      return corrupt(fmt::format("page {}: expected {} references, found {}", page, expected[page], references_[page]));
    }
    if (seen[page] != (references_[page] == 0)) {
      return corrupt(fmt::format("page {}: {} references, yet {} the free list", page, references_[page],
                                 seen[page] ? "in" : "not in"));
    }
  }
  return {};
}

}  // namespace spillway::kv
