// A small engine over a fake model, and what its tests ask of it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/testing/collector.h"
#include "engine/testing/fake_model.h"

namespace spillway::engine::testing {

using Tokens = std::vector<int32_t>;

inline Tokens random_prompt(uint64_t seed, int length, int vocab = 64) {
  std::mt19937_64 random(seed);
  Tokens tokens(length);
  for (auto& token : tokens) token = static_cast<int32_t>(random() % vocab);
  return tokens;
}

inline EngineOptions small_options() {
  EngineOptions options;
  options.kv_cache_bytes = 1 << 20;
  options.page_tokens = 16;
  options.batch_tokens_max = 48;
  options.threads = 1;
  options.speculate_adaptively = false;
  return options;
}

inline std::unique_ptr<Engine> start(FakeOptions fake = {}, EngineOptions options = small_options()) {
  auto engine = Engine::start(std::make_unique<FakeModel>(fake), options);
  SW_CHECK(engine.ok(), engine.error().message);
  return std::move(engine).value();
}

inline std::shared_ptr<Collector> submit(Engine& engine, std::unique_ptr<Request> request) {
  auto sink = std::make_shared<Collector>();
  const auto refusal = engine.submit(std::move(request), sink);
  EXPECT_FALSE(refusal) << refusal->message;
  return sink;
}

// All pages are free or reclaimable once nothing runs. (The engine checks every reference when it stops.)
inline void expect_no_leak(Engine& engine) {
  ASSERT_TRUE(engine.drain(TimePoint::max()));
  const EngineState state = engine.state();
  EXPECT_EQ(state.pages_free + state.pages_cached, state.pages_total);
  EXPECT_EQ(state.running + state.waiting, 0);
}

inline Tokens greedy(const Tokens& prompt, int count, const FakeOptions& fake = {}) {
  Tokens tokens = prompt;
  for (int i = 0; i < count; ++i) {
    const auto row = FakeModel::logits_after(tokens, fake);
    tokens.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return Tokens(tokens.begin() + prompt.size(), tokens.end());
}

}  // namespace spillway::engine::testing
