#include "kernels/moe.h"

#include <algorithm>
#include <numeric>

#include "kernels/elementwise.h"
#include "kernels/test_support.h"

namespace spillway::kernels {
namespace {

using namespace test;  // NOLINT: the vocabulary of the kernel tests

class Moe : public EveryIsa {};
SW_EVERY_ISA(Moe);

struct Layer {
  std::vector<Tensor> sources;
  PackedExperts experts;
};

Layer make_layer(int experts, int64_t hidden, int64_t inner, Precision precision, tensor::Stream& stream) {
  Layer layer;
  const auto pack = [&](Shape shape, uint32_t seed) {
    layer.sources.push_back(stored_as(random_f32(shape, seed, 0.2f), DType::kBF16));
    WeightSource source;
    source.weight = layer.sources.back();
    return *pack_linear(source, precision, stream);
  };
  for (int e = 0; e < experts; ++e) {
    const auto seed = static_cast<uint32_t>(2 * e);
    ExpertWeights weights;
    weights.gate_up = pack({2 * inner, hidden}, seed);
    weights.down = pack({hidden, inner}, seed + 1);
    layer.experts.weights.push_back(std::move(weights));
    ++layer.experts.count;
  }
  return layer;
}

TEST_P(Moe, ExpertsEqualTheirDenseProductsBitForBit) {
  const int64_t tokens = 40, slots = 3, hidden = 70, inner = 36;
  const Tensor x = random_f32({tokens, hidden}, 1), weights = random_f32({tokens, slots}, 2);
  Tensor ids(DType::kI32, {tokens, slots});
  for (int32_t i = 0; i < tokens * slots; ++i) ids.as<int32_t>()[i] = (i * 5 + i / 7) % 6;  // expert 6 stays idle
  for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
    const Layer layer = make_layer(7, hidden, inner, precision, stream_);
    const Tensor y = Tensor::zeros(DType::kF32, {tokens, hidden});
    expert_mlp(x, ids, weights, layer.experts, y, stream_);
    for (const int64_t t : {int64_t{0}, int64_t{17}, tokens - 1}) {
      // Alone, and by plain products.
      const Tensor alone = Tensor::zeros(DType::kF32, {1, hidden});
      expert_mlp(x.view().rows(t, t + 1), ids.view().rows(t, t + 1), weights.view().rows(t, t + 1), layer.experts,
                 alone, stream_);
      EXPECT_TRUE(same_bits(alone, y.view().rows(t, t + 1)));
      std::vector<double> expected(static_cast<size_t>(hidden));
      for (int64_t s = 0; s < slots; ++s) {
        const ExpertWeights& expert = layer.experts.weights[static_cast<size_t>(ids.as<int32_t>()[t * slots + s])];
        const Tensor work = poisoned({1, 2 * inner}), mid = poisoned({1, inner}), out = poisoned({1, hidden});
        gated_linear(x.view().rows(t, t + 1), expert.gate_up, work, mid, stream_);
        linear(mid, expert.down, out, stream_);
        for (size_t i = 0; i < expected.size(); ++i) {
          expected[i] +=
              static_cast<double>(weights.as<float>()[t * slots + s]) * static_cast<double>(out.as<float>()[i]);
        }
      }
      EXPECT_LT(relative_error(alone, expected), 1e-6);
    }
  }
}

// The published procedure, written plainly in float64.
std::vector<std::pair<double, int>> route_plainly(const float* logits, const float* bias, int experts,
                                                  const RoutingOptions& o) {
  std::vector<double> scores, choice;
  double total = 0;
  for (int e = 0; e < experts; ++e) total += std::exp(static_cast<double>(logits[e]));
  for (int e = 0; e < experts; ++e) {
    const double l = static_cast<double>(logits[e]);
    scores.push_back(o.score == RoutingOptions::Score::kSigmoid ? 1 / (1 + std::exp(-l)) : std::exp(l) / total);
    choice.push_back(scores.back() + (bias != nullptr ? static_cast<double>(bias[e]) : 0.0));
  }
  const int size = experts / o.groups;
  std::vector<std::pair<double, int>> groups;
  for (int g = 0; g < o.groups; ++g) {
    std::vector<double> in(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(in.rbegin(), in.rend());
    groups.emplace_back(size > 1 ? in[0] + in[1] : in[0], g);
  }
  std::sort(groups.rbegin(), groups.rend());
  std::vector<std::pair<double, int>> ranked;
  for (int i = 0; i < o.groups_per_token; ++i) {
    const int g = groups[static_cast<size_t>(i)].second;
    for (int e = g * size; e < (g + 1) * size; ++e) ranked.emplace_back(choice[static_cast<size_t>(e)], e);
  }
  std::sort(ranked.rbegin(), ranked.rend());
  ranked.resize(static_cast<size_t>(o.experts_per_token));
  double sum = 1e-20;
  for (auto& [value, e] : ranked) sum += value = scores[static_cast<size_t>(e)];
  for (auto& [value, e] : ranked) value *= static_cast<double>(o.scale) / (o.normalize ? sum : 1.0);
  return ranked;
}

TEST_P(Moe, RoutesAsPublished) {
  const int64_t tokens = 50;
  const int experts = 32;
  const Tensor logits = random_f32({tokens, experts}, 1), bias = random_f32({experts}, 2, 0.3f);
  std::vector<RoutingOptions> all(4);
  all[0] = {.experts_per_token = 4, .groups = 8, .groups_per_token = 3, .normalize = true, .scale = 2.5f};
  all[1] = {.experts_per_token = 6, .groups = 1, .groups_per_token = 1, .normalize = false, .scale = 1.5f};
  all[2] = {.score = RoutingOptions::Score::kSoftmax, .experts_per_token = 2, .normalize = true};
  all[3] = {.score = RoutingOptions::Score::kSoftmax, .experts_per_token = 32, .normalize = false};
  for (const RoutingOptions& options : all) {
    const int64_t slots = options.experts_per_token;
    const bool biased = options.score == RoutingOptions::Score::kSigmoid;
    Tensor ids(DType::kI32, {tokens, slots});
    const Tensor weights = poisoned({tokens, slots});
    route_tokens(logits, biased ? bias.view() : TensorView(), options, ids, weights, stream_);
    for (int64_t t = 0; t < tokens; ++t) {
      const auto expected =
          route_plainly(logits.as<float>() + t * experts, biased ? bias.as<float>() : nullptr, experts, options);
      for (int64_t s = 0; s < slots; ++s) {
        EXPECT_EQ(ids.as<int32_t>()[t * slots + s], expected[static_cast<size_t>(s)].second);
        EXPECT_NEAR(static_cast<double>(weights.as<float>()[t * slots + s]), expected[static_cast<size_t>(s)].first,
                    1e-6);
      }
    }
  }
}

}  // namespace
}  // namespace spillway::kernels
