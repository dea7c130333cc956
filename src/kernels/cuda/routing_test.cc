// Routing on the device against a plain routing of the same logits, and the router in one launch against float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cuda/device_test.h"
#include "kernels/cuda/layers.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::Tensor;

struct Choice {
  std::vector<int32_t> ids;
  std::vector<double> weights;
};

Choice plainly(const float* logits, const float* bias, int experts, const RoutingOptions& o) {
  std::vector<double> scores(static_cast<size_t>(experts)), choice(scores.size());
  for (size_t e = 0; e < scores.size(); ++e) {
    scores[e] = 1 / (1 + std::exp(-double(logits[e])));
    choice[e] = scores[e] + double(bias[e]);
  }
  const int size = experts / o.groups;
  std::vector<std::pair<double, int>> groups, ranked;
  for (int g = 0; g < o.groups; ++g) {
    std::vector<double> in(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(in.rbegin(), in.rend());
    groups.emplace_back(size > 1 ? in[0] + in[1] : in[0], g);
  }
  std::sort(groups.rbegin(), groups.rend());
  for (int i = 0; i < o.groups_per_token; ++i) {
    const int g = groups[size_t(i)].second;
    for (int e = g * size; e < (g + 1) * size; ++e) ranked.emplace_back(choice[size_t(e)], e);
  }
  std::sort(ranked.rbegin(), ranked.rend());
  Choice result;
  double sum = 1e-20;
  for (int s = 0; s < o.experts_per_token; ++s) sum += scores[size_t(ranked[size_t(s)].second)];
  for (int s = 0; s < o.experts_per_token; ++s) {
    const int e = ranked[size_t(s)].second;
    result.ids.push_back(e);
    result.weights.push_back(scores[size_t(e)] * double(o.scale) / (o.normalize ? sum : 1.0));
  }
  return result;
}

class Routing : public DeviceTest {
 protected:
  Tensor poisoned(DType dtype, tensor::Shape shape) {
    Tensor out(dtype, shape, kDevice);
    stream_->cuda().fill(out.view().data, 0xff, out.bytes());
    return out;
  }
  Tensor placed(tensor::Shape shape, const std::vector<float>& values) {
    Tensor out(DType::kF32, shape, kDevice);
    stream_->upload(out.view().data, values.data(), out.bytes());
    return out;
  }
  // As bf16; values becomes what they are rounded to.
  Tensor placed_bf16(tensor::Shape shape, std::vector<float>& values) {
    std::vector<uint16_t> words(values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, &values[i], 4);
      bits &= 0xffff0000u;
      std::memcpy(&values[i], &bits, 4);
      words[i] = uint16_t(bits >> 16);
    }
    Tensor out(DType::kBF16, shape, kDevice);
    stream_->upload(out.view().data, words.data(), out.bytes());
    return out;
  }
  template <class T>
  std::vector<T> read(const Tensor& device) {
    std::vector<T> values(device.bytes() / sizeof(T));
    stream_->download(values.data(), device.view().data, device.bytes());
    return values;
  }
  void expect_choice(const std::vector<float>& logits, const std::vector<float>& bias, const RoutingOptions& options,
                     const Tensor& ids, const Tensor& weights) {
    const size_t experts = bias.size(), tokens = logits.size() / experts, slots = size_t(options.experts_per_token);
    const auto found = read<int32_t>(ids);
    const auto factors = read<float>(weights);
    for (size_t t = 0; t < tokens; ++t) {
      const Choice expected = plainly(logits.data() + t * experts, bias.data(), int(experts), options);
      for (size_t s = 0; s < slots; ++s) {
        EXPECT_EQ(found[t * slots + s], expected.ids[s]) << "token " << t << " of " << experts << " experts";
        EXPECT_NEAR(double(factors[t * slots + s]), expected.weights[s], 1e-5);
      }
    }
  }
};

TEST_F(Routing, ChoosesAsPlainly) {
  const int64_t tokens = 301;
  for (const int experts : {12, 32, 64, 128, 256}) {
    for (const auto& [groups, kept] : {std::pair{1, 1}, {4, 2}, {4, 4}}) {
      RoutingOptions options{.experts_per_token = 5, .groups = groups, .groups_per_token = kept, .scale = 2.5f};
      if (experts >= 32) options.experts_per_token = 8;
      const auto logits = random(tokens * experts, 1), bias = random(experts, 0.2f);
      const Tensor from = placed({tokens, experts}, logits), offsets = placed({experts}, bias);
      const Tensor ids = poisoned(DType::kI32, {tokens, options.experts_per_token}),
                   weights = poisoned(DType::kF32, {tokens, options.experts_per_token});
      cuda::route_tokens(from, offsets, options, ids, weights, *stream_);
      expect_choice(logits, bias, options, ids, weights);
    }
  }
}

// A logit that is not a number is chosen last, and equal ones by their place.
TEST_F(Routing, EqualAndBrokenLogits) {
  const int experts = 256;
  std::vector<float> logits(experts, 0.5f);
  for (int e = 0; e < 100; ++e) logits[size_t(e)] = NAN;
  const RoutingOptions options{.experts_per_token = 8};
  const Tensor from = placed({1, experts}, logits);
  const Tensor ids = poisoned(DType::kI32, {1, 8}), weights = poisoned(DType::kF32, {1, 8});
  cuda::route_tokens(from, {}, options, ids, weights, *stream_);
  EXPECT_EQ(read<int32_t>(ids), (std::vector<int32_t>{100, 101, 102, 103, 104, 105, 106, 107}));
}

TEST_F(Routing, RouterInOneLaunch) {
  for (const auto& [experts, hidden] : {std::pair{256, 7168}, {64, 1024}}) {
    const RoutingOptions options{.experts_per_token = 8, .groups = 8, .groups_per_token = 4, .scale = 2.5f};
    std::vector<float> w = random(int64_t{experts} * hidden, 0.02f);
    const Tensor stored = placed_bf16({experts, hidden}, w);
    PackedLinear router;
    router.format = PackedFormat::kBf16;
    router.n = experts, router.k = hidden;
    router.data = Tensor(DType::kBF16, {experts, hidden}, kDevice);
    stream_->cuda().copy(router.data.view().data, stored.view().data, stored.bytes());
    const auto bias = random(experts, 0.2f);
    const Tensor offsets = placed({experts}, bias);
    for (const int64_t tokens : {1, 2, 8, 2}) {
      std::vector<float> x = random(tokens * hidden, 1);
      const Tensor from = placed_bf16({tokens, hidden}, x);
      const Tensor logits = poisoned(DType::kF32, {tokens, experts}), ids = poisoned(DType::kI32, {tokens, 8}),
                   weights = poisoned(DType::kF32, {tokens, 8});
      ASSERT_TRUE(routes_at_once(from, router, logits, offsets, options, ids, weights, *stream_));
      const auto found = read<float>(logits);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t e = 0; e < experts; ++e) {
          double sum = 0;
          for (int64_t i = 0; i < hidden; ++i) sum += double(x[size_t(t * hidden + i)]) * w[size_t(e * hidden + i)];
          ASSERT_NEAR(double(found[size_t(t * experts + e)]), sum, 2e-5);
        }
      }
      expect_choice(found, bias, options, ids, weights);
    }
    const Tensor many = poisoned(DType::kBF16, {9, hidden});
    EXPECT_FALSE(routes_at_once(many, router, many, offsets, options, many, many, *stream_));
  }
}

// Beside the routed experts as when it is one of them, the last of each token and of weight 1: the same bits.
TEST_F(Routing, SharedExpertBesideTheRouted) {
  if (tensor::cuda::device_info(0).capability() != 90) GTEST_SKIP() << "a call of its own before sm_90";
  constexpr int kExperts = 6, kSlots = 3, kHidden = 512, kInter = 256;
  const auto packed = [&](PackedFormat format, int64_t n, int64_t k, int count) {
    PackedLinear weight;
    weight.format = format, weight.n = n, weight.k = k;
    const bool bytes = format == PackedFormat::kF8;
    weight.data = Tensor(bytes ? DType::kU8 : DType::kBF16, {count * n, k}, kDevice);
    std::vector<uint8_t> values(weight.data.bytes());
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t r = uint32_t(random_());
      values[i] = bytes ? uint8_t(r % 0x60 | (r >> 8 & 0x80)) : uint8_t(i % 2 == 0 ? r : 0x3c | (r >> 8 & 0x80));
    }
    stream_->upload(weight.data.view().data, values.data(), values.size());
    if (bytes) {
      auto scales = random(count * n / 128 * (k / 128), 0.01f);
      weight.scales = placed({count * n / 128, k / 128}, scales);
    }
    return weight;
  };
  const auto last_of = [&](const PackedLinear& all) {
    PackedLinear weight;
    weight.format = all.format, weight.n = all.n, weight.k = all.k;
    const size_t bytes = all.data.bytes() / (kExperts + 1);
    weight.data = Tensor(all.data.view().dtype, {all.n, all.k}, kDevice);
    stream_->cuda().copy(weight.data.view().data, all.data.view().data + kExperts * bytes, bytes);
    if (!all.scales.empty()) {
      const size_t part = all.scales.bytes() / (kExperts + 1);
      weight.scales = Tensor(DType::kF32, {all.n / 128, all.k / 128}, kDevice);
      stream_->cuda().copy(weight.scales.view().data, all.scales.view().data + kExperts * part, part);
    }
    return weight;
  };
  for (const PackedFormat format : {PackedFormat::kF8}) {
    PackedExperts all, routed;
    for (PackedExperts* experts : {&all, &routed}) experts->weights.resize(1);
    const uint32_t seed = uint32_t(random_());
    for (PackedExperts* experts : {&all, &routed}) {  // the same weights twice: they cannot be copied
      random_.seed(seed);
      experts->weights[0].gate_up = packed(format, 2 * kInter, kHidden, kExperts + 1);
      experts->weights[0].down = packed(format, kHidden, kInter, kExperts + 1);
    }
    all.count = kExperts + 1, routed.count = kExperts;
    const PackedLinear gate_up = last_of(all.weights[0].gate_up), down = last_of(all.weights[0].down);
    for (const int64_t tokens : {1, 2, 12}) {
      ASSERT_TRUE(cuda::takes_shared_expert(routed, gate_up, down, tokens, kSlots, *stream_));
      std::vector<float> x = random(tokens * kHidden, 1);
      const Tensor from = placed_bf16({tokens, kHidden}, x);
      std::vector<int32_t> chosen, with_shared;
      std::vector<float> factors, all_factors;
      for (int64_t t = 0; t < tokens; ++t) {
        for (int s = 0; s < kSlots; ++s) {
          chosen.push_back(int32_t((t * 2 + s * 5 + 1) % kExperts));
          factors.push_back(0.2f * float(s + 1));
        }
        with_shared.insert(with_shared.end(), chosen.end() - kSlots, chosen.end());
        with_shared.push_back(kExperts);
        all_factors.insert(all_factors.end(), factors.end() - kSlots, factors.end());
        all_factors.push_back(1);
      }
      const auto placed_ids = [&](const std::vector<int32_t>& values) {
        Tensor out(DType::kI32, {tokens, int64_t(values.size()) / tokens}, kDevice);
        stream_->upload(out.view().data, values.data(), out.bytes());
        return out;
      };
      const Tensor expected = placed({tokens, kHidden}, x), found = placed({tokens, kHidden}, x);
      const Tensor all_ids = placed_ids(with_shared), all_weights = placed({tokens, kSlots + 1}, all_factors);
      const Tensor ids = placed_ids(chosen), weights = placed({tokens, kSlots}, factors);
      cuda::expert_mlp(from, all_ids, all_weights, all, expected, *stream_);
      cuda::expert_mlp_shared(from, ids, weights, routed, gate_up, down, found, *stream_);
      const auto a = read<float>(expected), b = read<float>(found);
      for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << i << " of " << tokens << " tokens";
      EXPECT_NE(a, x);
    }
    EXPECT_FALSE(cuda::takes_shared_expert(routed, gate_up, down, 33, kSlots, *stream_));
  }
}

}  // namespace
}  // namespace spillway::kernels::cuda
