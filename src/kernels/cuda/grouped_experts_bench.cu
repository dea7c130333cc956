// Test and benchmark of a layer's experts (grouped_experts.h), all launches. Prints every check, then times; ends with
// 1 when a check failed. Arguments: none, or "small": few and small checks.
//
// Two references in float64. `exact`: of the values as given. `rounded`: x and h rounded to e4m3 by groups of 128, as
// the grouped ways do. What lies between them is no kernel's doing: a rounding has a relative error of 2^-3 / sqrt(12)
// of the value's power of two, 2.45e-2 in the mean square; x's enters gate and up, so h has sqrt(3) times as much, some
// 4.3e-2, and where one token's few large h decide, 3e-2 to 6.2e-2 (60 inputs of one token). So the grouped ways are
// held against `rounded`: by what the products lose (8e-3; 2e-2 where gates and ups are rounded to bf16 between) and by
// one of the large h that this loss rounds the other way, a step of at most 1/8.
#include <cstring>

#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemm_fp8_testing.cuh"
#include "kernels/cuda/grouped_experts.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

constexpr int kExperts = 8, kRouted = 4, kHidden = 512, kInter = 256;
constexpr int kWideTokens = 48;  // of these experts: more go to blocks of 64 rows, whose gates and ups are bf16

// As quantize_activations.h does.
void round_groups(std::vector<float>& x) {
  for (size_t g = 0; g < x.size(); g += 128) {
    float most = 1e-4f;
    for (size_t i = g; i < g + 128; ++i) most = std::max(most, std::fabs(x[i]));
    const float scale = most / 448.0f;
    for (size_t i = g; i < g + 128; ++i) x[i] = static_cast<float>(__nv_fp8_e4m3(x[i] / scale)) * scale;
  }
}

// Of a call: the weights, and of each slot of a token its expert and its weight. shared: the last one is every token's.
struct Experts {
  int tokens, slots;
  bool shared;
  Fp8Weight up, down;
  std::vector<int32_t> chosen;
  std::vector<float> x, factors, before;

  Experts(int count, bool with_shared, uint32_t seed)
      : tokens(count),
        slots(kRouted + (with_shared ? 1 : 0)),
        shared(with_shared),
        up(kExperts, 2 * kInter, kHidden, seed),
        down(kExperts, kHidden, kInter, seed + 2) {
    for (int i = 0; i < tokens * slots; ++i) {
      const bool last = i % slots == kRouted;
      chosen.push_back(last ? kExperts - 1 : (i / slots * 7 + i % slots * (1 + i / 64 % 2)) % (kExperts - 1));
    }
  }
  float factor(int item) const {
    return item % slots == kRouted ? 1.0f : factors[item / slots * kRouted + item % slots];
  }

  // effective: of how many values of h the sum of squares is made, as if all were alike.
  std::vector<double> expected(bool rounded, double* effective = nullptr) const {
    std::vector<float> from = x, h(static_cast<size_t>(tokens) * slots * kInter);
    if (rounded) round_groups(from);
    Buffer x32(from.size() * 4), h32(h.size() * 4);
    check(cudaMemcpy(x32.data, from.data(), x32.bytes, cudaMemcpyHostToDevice), "copy");
    Weight all = up.weight;
    all.n = kExperts * 2 * kInter;
    const auto wide = reference(x32.as<float>(), all, tokens);
    double squares = 0, fourths = 0;
    for (int s = 0; s < tokens * slots; ++s) {
      for (int j = 0; j < kInter; ++j) {
        const size_t at = (static_cast<size_t>(s / slots) * kExperts + chosen[s]) * 2 * kInter + j;
        const double value = wide[at] / (1 + std::exp(-wide[at])) * wide[at + kInter];
        h[static_cast<size_t>(s) * kInter + j] = static_cast<float>(value);
        squares += std::pow(factor(s) * value, 2), fourths += std::pow(factor(s) * value, 4);
      }
    }
    if (effective != nullptr) *effective = squares * squares / fourths;
    if (rounded) round_groups(h);
    check(cudaMemcpy(h32.data, h.data(), h32.bytes, cudaMemcpyHostToDevice), "copy");
    all = down.weight;
    all.n = kExperts * kHidden;
    const auto outs = reference(h32.as<float>(), all, tokens * slots);
    std::vector<double> y(before.begin(), before.end());
    for (int s = 0; s < tokens * slots; ++s) {
      for (int j = 0; j < kHidden; ++j) {
        y[static_cast<size_t>(s / slots) * kHidden + j] +=
            factor(s) * outs[(static_cast<size_t>(s) * kExperts + chosen[s]) * kHidden + j];
      }
    }
    return y;
  }
};

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(difference / norm);
}

void check_experts(int tokens, ExpertsWay way, uint32_t seed, bool shared = false) {
  Experts e(tokens, shared, seed);
  Buffer x(tokens * kHidden * 2), ids(tokens * kRouted * 4), weights(ids.bytes), counters(kFewRowsCounters * 4),
      y(tokens * kHidden * 4);
  fill(x.data, tokens * kHidden, Fill::kBf16, seed + 4);
  fill(weights.data, tokens * kRouted, Fill::kF32, seed + 5);
  check(cudaMemset(counters.data, 0, counters.bytes), "counters");
  fill(y.data, tokens * kHidden, Fill::kF32, seed + 6);
  e.x = to_host(x.data, Scalar::kBf16, tokens * kHidden);
  e.factors = to_host(weights.data, Scalar::kF32, tokens * kRouted);
  e.before = to_host(y.data, Scalar::kF32, tokens * kHidden);
  std::vector<int32_t> routed;
  for (int i = 0; i < tokens * e.slots; ++i) {
    if (i % e.slots < kRouted) routed.push_back(e.chosen[i]);
  }
  check(cudaMemcpy(ids.data, routed.data(), ids.bytes, cudaMemcpyHostToDevice), "copy");
  ExpertsMlp m;
  m.tokens = tokens, m.slots = kRouted, m.experts = kExperts, m.hidden = kHidden, m.inter = kInter;
  m.x = x.data, m.x_stride = kHidden, m.ids = ids.as<int32_t>(), m.weights = weights.as<float>();
  m.gate_up = e.up.weight, m.down = e.down.weight, m.y = y.data, m.y_stride = kHidden, m.way = way;
  if (shared) {
    m.experts = kExperts - 1;
    m.shared_gate_up = e.up.expert(kExperts - 1), m.shared_down = e.down.expert(kExperts - 1);
  }
  m.counters = counters.as<unsigned>();
  Buffer space(experts_workspace_bytes(m, tokens));
  check(launch_experts(m, space.data, space.bytes, nullptr), "experts");
  check(cudaDeviceSynchronize(), "experts");
  std::vector<unsigned> left(kFewRowsCounters);
  check(cudaMemcpy(left.data(), counters.data, counters.bytes, cudaMemcpyDeviceToHost), "copy");
  if (std::count(left.begin(), left.end(), 0u) != kFewRowsCounters) ++failures, std::printf("WRONG: counters left\n");
  const bool rounds = way != ExpertsWay::kStreamed;
  double effective = 0;
  const auto exact = e.expected(false, &effective), rounded = e.expected(true);
  char what[112];
  std::snprintf(what, sizeof(what), "experts of %d tokens, way %d%s (rounding alone %.2e)", tokens,
                static_cast<int>(way), shared ? ", shared" : "", distance(rounded, exact));
  const double lost = way == ExpertsWay::kGrouped || tokens > kWideTokens ? 2e-2 : 8e-3;
  compare(what, to_host(y.data, Scalar::kF32, tokens * kHidden), rounds ? rounded : exact,
          rounds ? lost + 0.125 / std::sqrt(effective) : 1e-2);
}

// R1's routed experts of one layer, every stage.
void time_experts(int tokens, ExpertsWay way = ExpertsWay::kChoose) {
  constexpr int kExperts = 256, kSlots = 8, kHidden = 7168, kInter = 2048;
  static const Fp8Weight up(kExperts, 2 * kInter, kHidden, 1), down(kExperts, kHidden, kInter, 2);
  Buffer x(static_cast<size_t>(tokens) * kHidden * 2), ids(tokens * kSlots * 4), weights(tokens * kSlots * 4),
      y(static_cast<size_t>(tokens) * kHidden * 4);
  fill(x.data, static_cast<int64_t>(tokens) * kHidden, Fill::kBf16, 3);
  fill(weights.data, tokens * kSlots, Fill::kF32, 4);
  fill(y.data, static_cast<int64_t>(tokens) * kHidden, Fill::kF32, 5);
  std::vector<int32_t> chosen(tokens * kSlots);
  std::vector<bool> used(kExperts);
  for (int i = 0; i < tokens * kSlots; ++i) {
    chosen[i] = (i / kSlots * 53 + i % kSlots * 37 + i / kSlots * i % 11 * 32) % kExperts;
    used[chosen[i]] = true;
  }
  check(cudaMemcpy(ids.data, chosen.data(), chosen.size() * 4, cudaMemcpyHostToDevice), "copy");
  ExpertsMlp m;
  m.tokens = tokens, m.slots = kSlots, m.experts = kExperts, m.hidden = kHidden, m.inter = kInter;
  m.x = x.data, m.x_stride = kHidden, m.ids = ids.as<int32_t>(), m.weights = weights.as<float>();
  m.gate_up = up.weight, m.down = down.weight, m.y = y.data, m.y_stride = kHidden, m.way = way;
  Buffer space(experts_workspace_bytes(m, tokens)), counters(kFewRowsCounters * 4);
  check(cudaMemset(counters.data, 0, counters.bytes), "counters");
  m.counters = counters.as<unsigned>();
  const double seconds = time_graph(
      2, 5, [&](int, cudaStream_t stream) { check(launch_experts(m, space.data, space.bytes, stream), "experts"); });
  const double bytes = static_cast<double>(std::count(used.begin(), used.end(), true)) * 3 * kHidden * kInter;
  std::printf(
      "R1 routed experts, %4d tokens, way %d, all stages: %8.1f us, %.2f TB/s of the weights used, %5.0f TFLOP/s\n",
      tokens, static_cast<int>(way), seconds * 1e6, bytes / seconds * 1e-12,
      2.0 * tokens * kSlots * 3 * kHidden * kInter / seconds * 1e-12);
}

// R1's routed experts by all ways, checked before.
int run() {
  for (const int tokens : {1, 37, 300}) check_experts(tokens, ExpertsWay::kGrouped, 800 + tokens);
  for (const int tokens : {1, 16, 19, 37, 48, 49}) check_experts(tokens, ExpertsWay::kFewRows, 900 + tokens);
  for (const int tokens : {1, 2, 12, 16, 17}) check_experts(tokens, ExpertsWay::kFewRows, 980 + tokens, true);
  for (const int tokens : {1, 37}) check_experts(tokens, ExpertsWay::kStreamed, 860 + tokens);
  std::printf("failures: %d\n", failures);
  for (const int tokens : {8, 32, 128, 256, 512, 768}) {
    for (const auto way : {ExpertsWay::kGrouped, ExpertsWay::kFewRows}) time_experts(tokens, way);
  }
  for (const int n : {1, 2, 3, 4}) time_experts(n, ExpertsWay::kStreamed), time_experts(n, ExpertsWay::kFewRows);
  time_experts(4096);
  return failures == 0 ? 0 : 1;
}

// For a sanitizer, which takes a hundred times as long.
int run_small() {
  check_experts(5, ExpertsWay::kGrouped, 500);
  for (const int tokens : {5, 20, 40}) check_experts(tokens, ExpertsWay::kFewRows, 700 + tokens);
  check_experts(2, ExpertsWay::kStreamed, 600);
  check_experts(3, ExpertsWay::kFewRows, 640, true);
  std::printf("failures: %d\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  const bool small = argc > 1 && std::strcmp(argv[1], "small") == 0;
  return small ? spillway::kernels::cuda::run_small() : spillway::kernels::cuda::run();
}
