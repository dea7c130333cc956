// The page pool and the prefix tree under random operations, against a model that keeps every prefix in a map.
#include "kv/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace spillway::kv {
namespace {

using Tokens = std::vector<int32_t>;

TEST(PagePool, CountsReferencesAndReusesPages) {
  PagePool pool(2);
  const PageId a = pool.allocate(), b = pool.allocate();
  EXPECT_NE(a, b);
  EXPECT_EQ(pool.allocate(), kNoPage);
  pool.retain(a);
  pool.release(a);
  EXPECT_EQ(pool.pages_free(), 0);
  pool.release(a);
  EXPECT_EQ(pool.allocate(), a);
}

TEST(PagePool, CheckFindsALeakAndALostReference) {
  PagePool pool(2);
  const PageId page = pool.allocate();
  EXPECT_TRUE(pool.check(std::vector<PageId>{page}).ok());
  const Status leak = pool.check({});
  ASSERT_FALSE(leak.ok());
  EXPECT_THAT(leak.error().message, testing::HasSubstr("expected 0 references, found 1"));
  EXPECT_FALSE(pool.check(std::vector<PageId>{page, page}).ok());
}

TEST(PagePool, DoubleFreeAborts) {
  PagePool pool(1);
  const PageId page = pool.allocate();
  pool.release(page);
  EXPECT_DEATH(pool.release(page), "released more often");
}

TEST(Cache, TellsTheUseOfPagesAndTheTreeInNumbers) {
  Cache cache(8, 2, true);
  BlockTable first, second, third;
  ASSERT_TRUE(cache.grow(first, 6));
  cache.share(first, Tokens{1, 2, 3, 4, 5, 6}, 0);
  const Tokens other = {1, 2, 9, 9, 7};
  cache.acquire_prefix(other, 100, 0, second);
  ASSERT_TRUE(cache.grow(second, 5));
  cache.share(second, Tokens{1, 2, 9, 9}, 0);
  ASSERT_TRUE(cache.grow(third, 2));
  cache.share(third, Tokens{8, 8}, 0);
  EXPECT_EQ(cache.use_of(first.pages[0]), PageUse::kShared);
  EXPECT_EQ(cache.use_of(first.pages[1]), PageUse::kUsed);
  cache.release(third);
  const PrefixSummary tree = cache.prefixes();
  EXPECT_EQ(tree.pages, 5);
  EXPECT_EQ(tree.roots, 2);
  EXPECT_EQ(tree.leaves, 3);
  EXPECT_EQ(tree.forks, 1);
  EXPECT_EQ(tree.depth_max, 3);
  EXPECT_EQ(tree.idle, 1);
  ASSERT_EQ(tree.largest.size(), 2u);
  EXPECT_EQ(tree.largest[0].pages, 4);
  EXPECT_EQ(tree.largest[0].leaves, 2);
  EXPECT_EQ(tree.largest[1].idle, 1);
  int cached = 0, free = 0;
  for (PageId page = 0; page < 8; ++page) {
    cached += cache.use_of(page) == PageUse::kCached;
    free += cache.use_of(page) == PageUse::kFree;
  }
  EXPECT_EQ(cached, 1);
  EXPECT_EQ(free, cache.pages_free());
}

TEST(Cache, SharesFullPagesOnly) {
  Cache cache(8, 4, true);
  BlockTable first, second;
  const Tokens tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  ASSERT_TRUE(cache.grow(first, 9));
  cache.share(first, tokens, 0);
  EXPECT_EQ(cache.acquire_prefix(tokens, 100, 0, second), 8);
  EXPECT_EQ(second.pages, Tokens(first.pages.begin(), first.pages.begin() + 2));
  EXPECT_TRUE(cache.check(std::vector<const BlockTable*>{&first, &second}).ok());
  EXPECT_EQ(cache.match(tokens, 1, 0).pages, 1);
  EXPECT_EQ(cache.match(tokens, 100, 7).pages, 0) << "another name space";
  cache.release(first);
  EXPECT_EQ(cache.pages_idle(), 0);
  cache.release(second);
  EXPECT_EQ(cache.pages_idle(), 2);
  EXPECT_EQ(cache.pages_available(), 8);
}

TEST(Cache, TwoThatComputedTheSamePrefixEndWithOneCopy) {
  Cache cache(8, 2, true);
  BlockTable a, b;
  const Tokens tokens = {1, 2, 3, 4};
  ASSERT_TRUE(cache.grow(a, 4));
  ASSERT_TRUE(cache.grow(b, 4));
  cache.share(a, tokens, 0);
  cache.share(b, tokens, 0);
  EXPECT_EQ(a.pages, b.pages);
  EXPECT_EQ(cache.pages_free(), 6);
  EXPECT_TRUE(cache.check(std::vector<const BlockTable*>{&a, &b}).ok());
}

TEST(Cache, ReclaimsTheLeastRecentlyUsedLeafFirst) {
  Cache cache(4, 1, true);
  BlockTable table;
  for (const Tokens& tokens : {Tokens{1, 2}, Tokens{3, 4}}) {
    ASSERT_TRUE(cache.grow(table, 2));
    cache.share(table, tokens, 0);
    cache.release(table);
  }
  ASSERT_EQ(cache.acquire_prefix(Tokens{1, 2}, 2, 0, table), 2);   // used again: now newer than {3, 4}
  cache.release(table);
  ASSERT_TRUE(cache.grow(table, 1));
  EXPECT_EQ(cache.match(Tokens{3, 4}, 2, 0).pages, 1);
  EXPECT_EQ(cache.match(Tokens{1, 2}, 2, 0).pages, 2);
  ASSERT_TRUE(cache.grow(table, 4));
  EXPECT_EQ(cache.match(Tokens{1, 2}, 2, 0).pages, 0);
  EXPECT_FALSE(cache.grow(table, 5));
}

// Sequences over a tiny alphabet, so that prefixes collide all the time. `content` is what was written to each page: a page
// handed out as a cached prefix must hold exactly that prefix.
class Simulation {
 public:
  Simulation(uint64_t seed, bool share) : random_(seed), cache_(kPages, kPageTokens, share) {}

  void step() {
    const int choice = random(10);
    if (choice < 4 || live_.empty()) {
      start();
    } else if (choice < 8) {
      extend(random(live_.size()));
    } else {
      finish(random(live_.size()));
    }
  }

  void check() {
    std::vector<const BlockTable*> tables;
    std::set<PageId> held;
    for (auto& sequence : live_) {
      tables.push_back(&sequence->table);
      held.insert(sequence->table.pages.begin(), sequence->table.pages.end());
      for (size_t page = 0; page < sequence->tokens.size() / kPageTokens; ++page) {
        const Tokens prefix(sequence->tokens.begin(), sequence->tokens.begin() + (page + 1) * kPageTokens);
        ASSERT_EQ(content_[sequence->table.pages[page]], prefix);
      }
    }
    const Status status = cache_.check(tables);
    ASSERT_TRUE(status.ok()) << status.error().message;
    ASSERT_EQ(cache_.pages_available(), kPages - static_cast<int>(held.size()));
  }

  void finish_all() {
    while (!live_.empty()) finish(0);
  }

 private:
  static constexpr int kPages = 24, kPageTokens = 3;
  struct Live {
    Tokens tokens;
    BlockTable table;
  };

  int random(size_t bound) { return static_cast<int>(random_() % bound); }

  void write(Live& live, size_t from) {
    for (size_t page = from / kPageTokens; page < live.tokens.size() / kPageTokens; ++page) {
      content_[live.table.pages[page]] = Tokens(live.tokens.begin(), live.tokens.begin() + (page + 1) * kPageTokens);
    }
    cache_.share(live.table, live.tokens, 0);
  }

  void start() {
    auto live = std::make_unique<Live>();
    for (int i = 1 + random(14); i > 0; --i) live->tokens.push_back(random(2));
    const auto match = cache_.match(live->tokens, 100, 0);
    const int available = cache_.pages_available();
    const int cached = cache_.acquire_prefix(live->tokens, 100, 0, live->table);
    ASSERT_EQ(cached, match.pages * kPageTokens);
    ASSERT_EQ(cache_.pages_available(), available - match.idle_pages);
    if (!cache_.grow(live->table, live->tokens.size())) {
      cache_.release(live->table);
      return;
    }
    write(*live, cached);
    live_.push_back(std::move(live));
  }

  void extend(int index) {
    Live& live = *live_[index];
    const size_t before = live.tokens.size();
    const int more = 1 + random(5);
    if (!cache_.grow(live.table, before + more)) return;
    for (int i = 0; i < more; ++i) live.tokens.push_back(random(2));
    write(live, before);
  }

  void finish(int index) {
    cache_.release(live_[index]->table);
    live_.erase(live_.begin() + index);
  }

  std::mt19937_64 random_;
  Cache cache_;
  std::vector<std::unique_ptr<Live>> live_;
  std::map<PageId, Tokens> content_;
};

class CacheProperty : public testing::TestWithParam<int> {};

TEST_P(CacheProperty, RandomOperationsAgreeWithTheModel) {
  Simulation simulation(GetParam(), GetParam() % 4 != 0);
  for (int i = 0; i < 3000; ++i) {
    simulation.step();
    simulation.check();
    if (testing::Test::HasFatalFailure()) return;
  }
  simulation.finish_all();
  simulation.check();
}

INSTANTIATE_TEST_SUITE_P(Seeds, CacheProperty, testing::Range(0, 12));

}  // namespace
}  // namespace spillway::kv
