// Checks launch_draw_rows against the sampler's definition written out on the CPU by sorting whole rows, and times it.
// Arguments: "small" (for compute-sanitizer).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "base/draw_noise.h"
#include "kernels/cuda/gemm_testing.cuh"
#include "kernels/cuda/sampling.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

std::mt19937& generator() {
  static std::mt19937 g{std::random_device{}()};
  return g;
}

double noise_of(const RowDraw& d, int token) {
  return -std::log(-std::log((draw_noise(d.key_low, d.key_high, static_cast<uint32_t>(token)) + 0.5) * 0x1p-32));
}

// The token by definition; margin: how near the decision was to another one (of values, and of masses relative).
int drawn(const float* logits, const RowDraw& d, double* margin) {
  struct Entry {
    float logit;
    int token;
    double weight;
  };
  std::vector<Entry> all;
  for (int i = 0; i < d.vocab; ++i)
    if (logits[i] != -INFINITY) all.push_back({logits[i], i, 0});
  *margin = 1;
  if (all.empty()) return -1;
  std::stable_sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.logit > b.logit; });
  if (!std::isfinite(all[0].logit)) return -1;
  if (d.temperature <= 0) return all[0].token;
  const float scale = 1.0f / d.temperature, max = all[0].logit;
  for (Entry& e : all) e.weight = std::exp(double(e.logit - max) * scale);
  size_t kept = all.size();
  if (d.top_k > 0) kept = std::min<size_t>(kept, size_t(d.top_k));
  if (d.top_p < 1) {
    double mass = 0, sum = 0;
    for (size_t i = 0; i < kept; ++i) mass += all[i].weight;
    size_t n = 0;
    while (n < kept && sum < d.top_p * mass) {
      *margin = std::min(*margin, std::fabs(sum / mass - d.top_p) * 1e3);
      sum += all[n++].weight;
    }
    *margin = std::min(*margin, std::fabs(sum / mass - d.top_p) * 1e3);
    kept = n;
  }
  const float floor = d.min_p > 0 ? max + std::log(d.min_p) * d.temperature : -INFINITY;
  double best = -INFINITY, second = -INFINITY;
  int token = -1;
  for (size_t i = 0; i < kept; ++i) {
    if (i > 0 && all[i].logit < floor) continue;
    const double value = double(all[i].logit) * scale + noise_of(d, all[i].token);
    if (value > best || (value == best && all[i].token < token)) {
      second = best, best = value, token = all[i].token;
    } else {
      second = std::max(second, value);
    }
  }
  *margin = std::min(*margin, (best - second) * 1e6);
  return token;
}

RowDraw random_draw(int vocab) {
  const auto pick = [](std::initializer_list<float> of) { return of.begin()[generator()() % of.size()]; };
  RowDraw d;
  d.temperature = pick({0, 0.3f, 0.7f, 1, 1, 2.5f});
  d.top_p = pick({1, 1, 0.5f, 0.9f, 0.95f, 0.999f});
  d.top_k = static_cast<int32_t>(pick({0, 0, 1, 5, 40, 1000, 300000}));
  d.min_p = pick({0, 0, 0, 0.05f, 0.3f});
  d.key_low = generator()(), d.key_high = generator()();
  d.vocab = vocab;
  return d;
}

void check_rows(int rows, int vocab, int stride, float spread, bool coarse, const char* name) {
  std::vector<float> logits(static_cast<size_t>(rows) * stride, 1e30f);  // padding must never win
  std::normal_distribution<float> normal(0, spread);
  std::vector<RowDraw> draws;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < vocab; ++i) {
      float v = normal(generator());
      if (coarse) v = std::round(v * 4) / 4;  // many ties
      if (generator()() % 50 == 0) v = -INFINITY;
      logits[static_cast<size_t>(r) * stride + i] = v;
    }
    draws.push_back(random_draw(vocab));
  }
  if (rows > 3) {
    std::fill_n(logits.begin() + stride, vocab, -INFINITY);
    draws[2].vocab = 0;
  }
  Buffer device(logits.size() * 4), params(draws.size() * sizeof(RowDraw)), tokens(rows * 4);
  check(cudaMemcpy(device.data, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice), "copy");
  check(cudaMemcpy(params.data, draws.data(), draws.size() * sizeof(RowDraw), cudaMemcpyHostToDevice), "copy");
  std::vector<int32_t> out(rows);
  check(cudaMemset(tokens.data, 0x77, rows * 4), "poison");
  check(launch_draw_rows(device.as<float>(), stride, params.as<RowDraw>(), rows, tokens.as<int32_t>(), nullptr),
        "draw");
  check(cudaDeviceSynchronize(), "draw");
  check(cudaMemcpy(out.data(), tokens.data, rows * 4, cudaMemcpyDeviceToHost), "copy");
  int wrong = 0, near = 0;
  for (int r = 0; r < rows; ++r) {
    double margin = 1;
    const int expected =
        draws[r].vocab == 0 ? 0x77777777 : drawn(logits.data() + static_cast<size_t>(r) * stride, draws[r], &margin);
    if (out[r] == expected) continue;
    if (margin < 1e-2) {
      ++near;
      continue;
    }
    if (++wrong <= 3) {
      std::printf("WRONG    row %d: %d instead of %d (temperature %g top_p %g top_k %d min_p %g)\n", r, out[r],
                  expected, draws[r].temperature, draws[r].top_p, draws[r].top_k, draws[r].min_p);
    }
  }
  failures += wrong;
  if (near > rows / 20 + 1) ++failures;
  std::printf("%-8s draws of %d rows of %d, %s: %d wrong, %d too near to call\n", wrong ? "WRONG" : "ok", rows, vocab,
              name, wrong, near);
}

// A few tokens of each row stand out, so that they hold nearly all of the mass, as a trained model's do.
void stand_out(float* logits, int rows, int vocab) {
  const float best[] = {24, 22.5f, 21, 20.5f, 20, 19.5f, 19, 18.5f};
  for (int r = 0; r < rows; ++r) {
    const int64_t at = int64_t(r) * vocab + generator()() % size_t(vocab - std::ssize(best));
    check(cudaMemcpy(logits + at, best, sizeof best, cudaMemcpyHostToDevice), "copy");
  }
}

void time_rows(int rows, const char* name, RowDraw draw, bool flat = false) {
  constexpr int kVocab = 151936, kSets = 4;
  Buffer logits(static_cast<size_t>(kSets) * rows * kVocab * 4), params(rows * sizeof(RowDraw)), tokens(rows * 4);
  fill(logits.data, static_cast<int64_t>(kSets) * rows * kVocab, Fill::kF32, 3, 2.5f);
  if (!flat) stand_out(logits.as<float>(), kSets * rows, kVocab);
  std::vector<RowDraw> draws(rows, draw);
  for (int r = 0; r < rows; ++r) draws[r].vocab = kVocab, draws[r].key_low = generator()(), draws[r].key_high = r;
  check(cudaMemcpy(params.data, draws.data(), draws.size() * sizeof(RowDraw), cudaMemcpyHostToDevice), "copy");
  const double seconds = time_graph(8, 5, [&](int i, cudaStream_t stream) {
    check(launch_draw_rows(logits.as<float>() + static_cast<size_t>(i % kSets) * rows * kVocab, kVocab,
                           params.as<RowDraw>(), rows, tokens.as<int32_t>(), stream),
          "draw");
  });
  std::printf("draw %3d rows of %d, %-22s %7.1f us, floor %5.1f us (one reading at 4.3 TB/s)\n", rows, kVocab, name,
              seconds * 1e6, rows * kVocab * 4.0 / 4.3e12 * 1e6);
}

int run(bool small) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  check_rows(5, 1000, 1000, 3, false, "spread 3");
  check_rows(40, 777, 780, 2, true, "ties");
  if (small) return failures == 0 ? 0 : 1;
  for (int i = 0; i < 4; ++i) {
    check_rows(16, 151936, 152064, 3, false, "spread 3");
    check_rows(64, 32000, 32000, 1.5f, true, "ties");
  }
  check_rows(1, 262144, 262144, 4, false, "spread 4");
  check_rows(24, 151936, 151936, 0.2f, false, "flat");  // more candidates than a block keeps
  check_rows(200, 5000, 5000, 3, false, "spread 3");
  check_rows(64, 151936, 151936, 9, false, "spread 9");  // few tokens hold nearly all of the mass
  std::printf("failures: %d\n", failures);
  RowDraw greedy, plain, nucleus, best_k;
  plain.temperature = nucleus.temperature = best_k.temperature = 0.8f;
  nucleus.top_p = 0.95f;
  best_k.top_k = 50, best_k.top_p = 0.9f;
  for (const int rows : {1, 8, 32, 128}) {
    time_rows(rows, "greedy", greedy);
    time_rows(rows, "temperature", plain);
    time_rows(rows, "top_p 0.95", nucleus);
    time_rows(rows, "top_p 0.95, flat", nucleus, true);
    time_rows(rows, "top_k 50, top_p 0.9", best_k);
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 && std::string(argv[1]) == "small"); }
