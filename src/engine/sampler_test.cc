// The sampler against plain definitions: whole sorts, double precision, long sums.
#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "engine/row_ops.h"

namespace spillway::engine {
namespace {

std::vector<float> random_row(uint64_t seed, int size, float spread = 3) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(size);
  for (float& logit : row) logit = normal(random);
  return row;
}

struct Drawer {
  SamplingParams params;
  SampleInput input;
  SampleScratch scratch;

  int32_t operator()(const std::vector<float>& row, int64_t position = 0) {
    input.params = &params;
    input.position = position;
    if (input.vocab_limit == 0) input.vocab_limit = static_cast<int>(row.size());
    return sample(row, input, scratch).value();
  }
  std::set<int32_t> support(const std::vector<float>& row, int draws) {
    std::set<int32_t> seen;
    for (int i = 0; i < draws; ++i) seen.insert((*this)(row, i));
    return seen;
  }
};

std::vector<double> softmax(const std::vector<float>& row, double temperature) {
  std::vector<double> p(row.size());
  const double max = *std::ranges::max_element(row);
  for (size_t i = 0; i < row.size(); ++i) p[i] = std::exp((row[i] - max) / temperature);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

std::vector<int32_t> by_logit(const std::vector<float>& row) {
  std::vector<int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int32_t a, int32_t b) { return row[a] > row[b]; });
  return order;
}

TEST(RowOps, MaxAndExpSumAgreeWithDoubles) {
  for (const int size : {1, 31, 32, 33, 512, 5001, 151936}) {
    const auto row = random_row(size, size);
    const float max = *std::ranges::max_element(row);
    EXPECT_EQ(row_max(row), max);
    for (const float scale : {1.0f, 0.5f, 4.0f}) {
      double sum = 0;
      for (const float logit : row) sum += std::exp((static_cast<double>(logit) - max) * scale);
      EXPECT_NEAR(row_exp_sum(row, max, scale) / sum, 1, 2e-6) << size;
    }
  }
}

TEST(RowOps, GumbelArgmaxEqualsTheLoopOverAll) {
  for (int seed = 0; seed < 30; ++seed) {
    const auto row = random_row(seed, 20011, seed % 3 == 0 ? 0.01f : 3);
    const float scale = 0.3f + 0.1f * seed;
    int32_t best = 0;
    for (int32_t i = 1; i < static_cast<int32_t>(row.size()); ++i) {
      if (static_cast<double>(row[i]) * scale + gumbel(seed, i) >
          static_cast<double>(row[best]) * scale + gumbel(seed, best))
        best = i;
    }
    EXPECT_EQ(row_gumbel_argmax(row, scale, seed), best);
  }
}

TEST(Sampler, GreedyTakesTheLowestOfTies) {
  Drawer draw;
  draw.params.temperature = 0;
  EXPECT_EQ(draw({1, 5, 5, 2, 5}), 1);
  draw.input.vocab_limit = 3;
  EXPECT_EQ(draw({1, 2, 3, 9, 9}), 2) << "padding of the head is never drawn";
}

TEST(Sampler, NoFiniteLogitIsAFailure) {
  SamplingParams params;
  SampleScratch scratch;
  const std::vector<float> row(8, std::nanf(""));
  EXPECT_FALSE(
      sample(row, {.params = &params, .counts = nullptr, .allowed = {}, .banned = {}, .vocab_limit = 8}, scratch));
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  const auto row = random_row(1, 40, 1.5);
  constexpr int kDraws = 20000;
  for (const float temperature : {0.5f, 1.0f, 1.7f}) {
    Drawer draw;
    draw.params.temperature = temperature;
    std::vector<int> counts(row.size());
    for (int i = 0; i < kDraws; ++i) ++counts[draw(row, i)];
    const auto p = softmax(row, temperature);
    double chi = 0;
    int cells = 0;
    for (size_t i = 0; i < row.size(); ++i) {
      const double expected = p[i] * kDraws;
      if (expected < 5) continue;
      chi += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++cells;
    }
    EXPECT_LT(chi, cells + 4 * std::sqrt(2.0 * cells)) << temperature;
  }
}

TEST(Sampler, SeedsAndPositionsAreIndependent) {
  const std::vector<float> row(1000, 0.0f);
  Drawer draw;
  std::map<int32_t, int> equal;
  int matches = 0;
  for (int i = 0; i < 5000; ++i) {
    draw.input.seed = 1;
    const int32_t a = draw(row, i), b = draw(row, i + 1);
    draw.input.seed = 2;
    matches += a == b;
    matches += a == draw(row, i);
  }
  EXPECT_LT(matches, 40) << "two draws of a thousand equal tokens agree once in a thousand";
}

TEST(Sampler, TopKTopPMinPKeepWhatTheyShould) {
  const auto row = random_row(3, 3000, 1);
  const auto order = by_logit(row);
  Drawer top_k;
  top_k.params.top_k = 5;
  top_k.params.temperature = 3;
  EXPECT_EQ(top_k.support(row, 1000), std::set<int32_t>(order.begin(), order.begin() + 5));

  for (const float top_p : {0.02f, 0.3f, 0.9f}) {
    Drawer draw;
    draw.params.top_p = top_p;
    const auto p = softmax(row, 1);
    size_t keep = 0;
    for (double mass = 0; mass < top_p; ++keep) mass += p[order[keep]];
    const std::set<int32_t> allowed(order.begin(), order.begin() + keep);
    const auto seen = draw.support(row, 1500);
    EXPECT_TRUE(std::ranges::includes(allowed, seen)) << top_p;
    EXPECT_GT(seen.size(), std::min<size_t>(keep, 200) / 2);
  }

  Drawer min_p;
  min_p.params.min_p = 0.3f;
  std::set<int32_t> allowed;
  for (const int32_t token : order) {
    if (row[token] >= row[order[0]] + std::log(0.3f)) allowed.insert(token);
  }
  EXPECT_EQ(min_p.support(row, 1500), allowed);
}

TEST(Sampler, TopPOfTopKIsOverWhatTopKLeft) {
  const std::vector<float> row = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  Drawer draw;
  draw.params.top_k = 2;  // 4/7 and 3/7
  draw.params.top_p = 0.55f;
  EXPECT_EQ(draw.support(row, 500), (std::set<int32_t>{0}));
}

TEST(Sampler, PenaltiesAreThoseOfTheDefinitions) {
  std::vector<float> row = {2, -1, 4, 3};
  TokenCounts counts;
  counts.set_prompt(std::vector<int32_t>{1, 2, 1});
  for (const int32_t token : {2, 2, 3}) counts.add_generated(token);
  Drawer draw;
  draw.params.temperature = 0;
  draw.input.counts = &counts;
  draw.params.frequency_penalty = 0.6f;
  draw.params.presence_penalty = 0.5f;
  EXPECT_EQ(draw(row), 2) << "4 - 1.2 - 0.5 = 2.3 > 3 - 0.6 - 0.5, 2";
  draw.params.presence_penalty = 0.9f;
  EXPECT_EQ(draw(row), 0) << "4 - 2.1, 3 - 1.5 < 2";
  draw.params.frequency_penalty = draw.params.presence_penalty = 0;
  draw.params.repetition_penalty = 2.5f;
  EXPECT_EQ(draw(row), 0) << "4 / 2.5 and 3 / 2.5 < 2; the prompt counts";
  draw.params.logit_bias = {{1, 100}, {77, 5}};
  EXPECT_EQ(draw(row), 1);
}

TEST(Sampler, ConstraintAndBansMask) {
  const auto row = random_row(9, 200, 1);
  std::vector<uint64_t> allowed(4, 0);
  allowed[1] = 0b1010;  // tokens 65 and 67
  Drawer draw;
  draw.input.allowed = allowed;
  EXPECT_EQ(draw.support(row, 500), (std::set<int32_t>{65, 67}));
  const std::vector<int32_t> banned = {67};
  draw.input.banned = banned;
  EXPECT_EQ(draw.support(row, 100), (std::set<int32_t>{65}));
  const std::vector<int32_t> both = {65, 67};
  draw.input.banned = both;
  EXPECT_EQ(draw.support(row, 500), (std::set<int32_t>{65, 67})) << "the grammar has the last word";
}

TEST(Sampler, LogprobsAreTheLogSoftmaxWithTheBest) {
  auto row = random_row(11, 5000, 2);
  row[17] = row[4000] = 50;  // a tie at the top
  SampleScratch scratch;
  const TokenEvent event = with_logprobs(row, 5000, 123, 6, scratch);
  const auto p = softmax(row, 1);
  EXPECT_NEAR(event.logprob, std::log(p[123]), 1e-4);
  const auto order = by_logit(row);
  ASSERT_EQ(event.top.size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(event.top[i].token, order[i]);
    EXPECT_NEAR(event.top[i].logprob, std::log(p[order[i]]), 1e-4);
  }
  EXPECT_EQ(with_logprobs({row.data(), 3}, 3, 0, 20, scratch).top.size(), 3u) << "more asked than there are";
}

TEST(Sampler, ADraftFromACloseDistributionIsUsuallyTheToken) {
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal(0, 0.1f);
  Drawer draw;
  int equal = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto row = random_row(i, 300, 3);
    auto draft = row;
    for (float& logit : draft) logit += normal(random);
    equal += draw(row, i) == draw(draft, i);
  }
  EXPECT_GT(equal, 1800);
}

}  // namespace
}  // namespace spillway::engine
