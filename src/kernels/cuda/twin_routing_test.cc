// Routing on the first GPU against the CPU's of the same logits, the router's product against the CPU's, and tokens
// carried into the next step against their definition (the CPU has them on the host).
#include "kernels/cuda/twin_test.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

struct RoutingCase {
  int experts;
  RoutingOptions options;
  bool biased;
};
using Score = RoutingOptions::Score;
constexpr RoutingCase kRoutings[] = {
    {256, {Score::kSigmoid, 8, 8, 4, true, 2.5f}, true},  {160, {Score::kSoftmax, 6, 8, 3, false, 16.0f}, false},
    {64, {Score::kSoftmax, 6, 1, 1, false, 1.0f}, false}, {128, {Score::kSoftmax, 8, 1, 1, true, 1.0f}, false},
    {12, {Score::kSigmoid, 3, 4, 2, true, 1.0f}, true},   {32, {Score::kSigmoid, 4, 1, 1, false, 1.0f}, true},
    {512, {Score::kSoftmax, 10, 1, 1, true, 1.0f}, false}};

class RoutingTwins : public TwinTest, public testing::WithParamInterface<RoutingCase> {
 protected:
  // What experts are chosen by, in double.
  std::vector<double> merits(const float* logits, const float* bias) const {
    const RoutingCase& c = GetParam();
    std::vector<double> scores(size_t(c.experts));
    double most = -INFINITY, sum = 0;
    for (int e = 0; e < c.experts; ++e) most = std::max(most, double(logits[e]));
    for (int e = 0; e < c.experts; ++e) sum += scores[size_t(e)] = std::exp(logits[e] - most);
    for (int e = 0; e < c.experts; ++e) {
      double& score = scores[size_t(e)];
      score = c.options.score == Score::kSoftmax ? score / sum : 1 / (1 + std::exp(-double(logits[e])));
      if (bias != nullptr) score += double(bias[e]);
    }
    return scores;
  }

  // The same experts in the same order, but for those whose merits, or their groups', float32 cannot tell apart.
  void compare_choice(const Tensor& logits, const Tensor& bias, const Tensor& ids, const Tensor& weights,
                      const Tensor& found_ids, const Tensor& found_weights) {
    const RoutingCase& c = GetParam();
    const int64_t tokens = logits.shape()[0], slots = c.options.experts_per_token;
    int64_t swapped = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      const auto merit = merits(logits.as<float>() + t * c.experts, bias.empty() ? nullptr : bias.as<float>());
      const int32_t *expected = ids.as<int32_t>() + t * slots, *found = found_ids.as<int32_t>() + t * slots;
      for (int64_t s = 0; s < slots; ++s) {
        ASSERT_TRUE(found[s] >= 0 && found[s] < c.experts) << "token " << t << ", slot " << s << ": " << found[s];
        swapped += found[s] != expected[s];
        ASSERT_TRUE(found[s] == expected[s] || c.options.groups > 1 ||
                    std::abs(merit[size_t(found[s])] - merit[size_t(expected[s])]) < 1e-6)
            << "token " << t << ", slot " << s << ": " << found[s] << ", expected " << expected[s];
        if (found[s] != expected[s]) continue;
        const double weight = weights.as<float>()[t * slots + s];
        ASSERT_NEAR(double(found_weights.as<float>()[t * slots + s]), weight, 2e-6 * double(c.options.scale))
            << "token " << t << ", slot " << s;
      }
    }
    EXPECT_LE(swapped, tokens * slots / 200 + (tokens > 8 ? slots : 0));
  }

  void run(int64_t tokens) {
    const RoutingCase& c = GetParam();
    const int64_t slots = c.options.experts_per_token;
    std::normal_distribution<float> normal;
    Tensor logits(DType::kF32, {tokens, c.experts}), bias;
    for (int64_t i = 0; i < tokens * c.experts; ++i) logits.as<float>()[i] = normal(random_);
    if (c.biased) {
      bias = Tensor(DType::kF32, {c.experts});
      for (int i = 0; i < c.experts; ++i) bias.as<float>()[i] = 0.2f * normal(random_);
    }
    Tensor ids(DType::kI32, {tokens, slots}), weights(DType::kF32, {tokens, slots});
    kernels::route_tokens(logits, bias, c.options, ids, weights, host_);
    const Tensor placed_bias = bias.empty() ? Tensor() : sent(bias);
    const Tensor found_ids = poisoned(DType::kI32, ids.shape()), found_weights = poisoned(DType::kF32, ids.shape());
    kernels::route_tokens(sent(logits), placed_bias, c.options, found_ids, found_weights, *stream_);
    compare_choice(logits, bias, ids, weights, fetched(found_ids), fetched(found_weights));
  }
};

TEST_P(RoutingTwins, ChosenExperts) {
  for (const int64_t tokens : {1, 2, 33, 300}) run(tokens);
}

// Scores that are equal on both sides: the lower expert first.
TEST_P(RoutingTwins, EqualScores) {
  const RoutingCase& c = GetParam();
  const int64_t tokens = 40, slots = c.options.experts_per_token;
  Tensor logits(DType::kF32, {tokens, c.experts});
  constexpr float kFew[] = {-2, -1, 0.5f, 3};  // no two pairs of them add up to the same
  for (int64_t i = 0; i < tokens * c.experts; ++i) logits.as<float>()[i] = kFew[below(4)];
  Tensor ids(DType::kI32, {tokens, slots}), weights(DType::kF32, {tokens, slots});
  kernels::route_tokens(logits, {}, c.options, ids, weights, host_);
  const Tensor found = poisoned(DType::kI32, ids.shape()), found_weights = poisoned(DType::kF32, ids.shape());
  kernels::route_tokens(sent(logits), {}, c.options, found, found_weights, *stream_);
  const Tensor on_host = fetched(found);
  for (int64_t i = 0; i < tokens * slots; ++i) ASSERT_EQ(on_host.as<int32_t>()[i], ids.as<int32_t>()[i]) << i;
}

// The router's logits are the CPU's, and the choice is what the CPU makes of the device's.
TEST_P(RoutingTwins, RouterAndChoice) {
  const RoutingCase& c = GetParam();
  constexpr int64_t kHidden = 1024;
  const int64_t slots = c.options.experts_per_token;
  const Tensor weight = numbers({c.experts, kHidden}, 1.0f / 32),
               bias = c.biased ? numbers({c.experts}, 0.25f) : Tensor();
  const WeightSource source{.weight = weight.view(), .scales = {}};
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const DType type = computes_in_f32(precision) ? DType::kF32 : half_type(kDevice);
    auto here = pack_linear(source, Precision::kFp32, host_), there = pack_linear(source, precision, *stream_);
    ASSERT_TRUE(here.ok() && there.ok());
    for (const int64_t tokens : {1, 2, 8, 9, 200}) {
      const Tensor x = numbers({tokens, kHidden}), placed_x = placed(x, type);
      Tensor expected(DType::kF32, {tokens, c.experts}), ids(DType::kI32, {tokens, slots}),
          weights(DType::kF32, {tokens, slots});
      kernels::linear(x, *here, expected, host_);
      const Tensor logits = poisoned(DType::kF32, expected.shape()), placed_bias = c.biased ? sent(bias) : Tensor();
      const Tensor found_ids = poisoned(DType::kI32, ids.shape()), found_weights = poisoned(DType::kF32, ids.shape());
      kernels::route(placed_x, *there, logits, placed_bias, c.options, found_ids, found_weights, *stream_);
      const Tensor found = fetched(logits);
      compare(expected, found, {1e-5, 1e-4}, "logits of " + std::to_string(tokens) + " tokens");
      kernels::route_tokens(found, bias, c.options, ids, weights, host_);
      compare_choice(found, bias, ids, weights, fetched(found_ids), fetched(found_weights));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Options, RoutingTwins, testing::ValuesIn(kRoutings),
                         [](const auto& info) { return "Of" + std::to_string(info.param.experts); });

using CarriedTokens = TwinTest;

TEST_F(CarriedTokens, AsDefined) {
  for (const int64_t count : {1, 7, 256, 1000}) {
    Tensor carried(DType::kI32, {count}), drawn(DType::kI32, {count}), ids(DType::kI32, {count});
    for (int64_t i = 0; i < count; ++i) {
      carried.as<int32_t>()[i] = int32_t(below(count + 1)) - 1;
      drawn.as<int32_t>()[i] = int32_t(below(100000)) - (i % 5 == 0 ? 100001 : 0);  // below 0: none was drawn
      ids.as<int32_t>()[i] = int32_t(below(100000));
    }
    const Tensor there = sent(ids);
    kernels::carry_tokens(sent(carried), sent(drawn), there, *stream_);
    const Tensor found = fetched(there);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t from = carried.as<int32_t>()[i];
      const int32_t expected = from < 0 ? ids.as<int32_t>()[i] : std::max(0, drawn.as<int32_t>()[from]);
      ASSERT_EQ(found.as<int32_t>()[i], expected) << i << " of " << count;
    }
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
