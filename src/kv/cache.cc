#include "kv/cache.h"

namespace spillway::kv {

PrefixTree::Match Cache::match(std::span<const int32_t> tokens, int pages_max, uint64_t salt) const {
  return share_ ? tree_.match(tokens, pages_max, salt) : PrefixTree::Match{};
}

int Cache::acquire_prefix(std::span<const int32_t> tokens, int pages_max, uint64_t salt, BlockTable& table) {
  if (!share_) return 0;
  table.shared = tree_.acquire(tokens, pages_max, table.pages, salt);
  return table.shared * page_tokens_;
}

bool Cache::grow(BlockTable& table, int64_t tokens) {
  const int missing = pages_for(tokens, page_tokens_) - static_cast<int>(table.pages.size());
  if (missing <= 0) return true;
  if (missing > pages_available()) return false;
  if (missing > pool_.pages_free()) tree_.reclaim(missing - pool_.pages_free());
  for (int i = 0; i < missing; ++i) table.pages.push_back(pool_.allocate());
  return true;
}

void Cache::share(BlockTable& table, std::span<const int32_t> tokens, uint64_t salt) {
  if (!share_) return;
  const int full = static_cast<int>(tokens.size()) / page_tokens_;
  if (full <= table.shared) return;
  tree_.insert(tokens, table.pages, table.shared, salt);
  table.shared = full;
}

void Cache::release(BlockTable& table) {
  tree_.release(table.pages);
  table.pages.clear();
  table.shared = 0;
}

int Cache::freed_by(const BlockTable& table) const {
  int freed = 0;
  for (const PageId page : table.pages) freed += pool_.references(page) == (tree_.contains(page) ? 2 : 1);
  return freed;
}

Status Cache::check(std::span<const BlockTable* const> tables) const {
  std::vector<PageId> held;
  for (const BlockTable* table : tables) held.insert(held.end(), table->pages.begin(), table->pages.end());
  tree_.append_held(held);
  SW_TRY(pool_.check(held));
  return tree_.check();
}

PageUse Cache::use_of(PageId page) const {
  const int references = pool_.references(page);
  if (references == 0) return PageUse::kFree;
  const int sequences = references - tree_.contains(page);
  return sequences == 0 ? PageUse::kCached : sequences == 1 ? PageUse::kUsed : PageUse::kShared;
}

}  // namespace spillway::kv
