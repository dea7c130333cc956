// How large the cache of keys and values becomes by default.
#include "engine/memory.h"

#include <gtest/gtest.h>

namespace spillway::engine {
namespace {

models::ModelInfo model() {
  models::ModelInfo info;
  info.context_tokens_max = 1600;  // 100 pages of 16 tokens
  info.kv.dtype = tensor::DType::kF32;
  info.kv.layer_widths = {64, 64};
  return info;
}

TEST(ChoosePages, TakesAQuarterOfWhatIsFreeBesideTheMappedWeights) {
  models::ModelInfo info = model();
  const EngineOptions options;
  const int64_t page = info.kv.bytes_per_page(options.page_tokens);
  const auto pages = [&](int64_t available_pages) { return choose_pages(info, options, available_pages * page); };
  EXPECT_EQ(pages(8000), 2000);
  EXPECT_EQ(pages(1'000'000'000), 100 * options.sequences_max);  // no more than can be used
  EXPECT_EQ(pages(100), 100);                                    // one context in any case
  info.mapped_bytes = 4000 * page;
  EXPECT_EQ(pages(8000), 1000);
  EXPECT_EQ(pages(3000), 100);
}

TEST(ChoosePages, TakesWhatTheOptionSays) {
  const models::ModelInfo info = model();
  EngineOptions options;
  options.kv_cache_bytes = 7 * info.kv.bytes_per_page(options.page_tokens) + 1;
  EXPECT_EQ(choose_pages(info, options, 0), 7);
}

TEST(MemoryAvailable, IsSomething) { EXPECT_GT(memory_available_bytes(), 0); }

}  // namespace
}  // namespace spillway::engine
