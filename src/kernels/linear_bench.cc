// The products of a Qwen2.5-1.5B layer against what the machine can do: decode against the memory's read bandwidth,
// prefill against the peak of the dot instruction. Prints floor, figure and ratio; the best of several runs, since
// other programs may share the cores. With one thread it counts that thread's CPU time, not the time that others took
// the core. Usage: linear_bench [threads] [only: part of a case's name] [NxK: instead of the layer's shapes]
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/isa.h"
#include "kernels/linear.h"
#include "kernels/pack_store.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace spillway;  // NOLINT: a program
using kernels::PackedLinear;
using kernels::Precision;
using tensor::DType;
using tensor::Tensor;

bool one_thread = false;

double now() {
  timespec time{};
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double seconds_of(const std::function<void()>& work, int repeats) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const double start = now();
    work();
    best = std::min(best, now() - start);
  }
  return best;
}

constexpr int64_t kPieceBytes = 1 << 20;

uint64_t sum_plain(const std::byte* piece) {
  uint64_t total = 0;
  for (int64_t i = 0; i < kPieceBytes; i += 64) {
    uint64_t word;  // one of each line
    std::memcpy(&word, piece + i, sizeof(word));
    total += word;
  }
  return total;
}

// Bytes a second that all threads together read from memory, by the widest loads there are.
double read_bandwidth(tensor::Stream& stream, uint64_t (*sum_piece)(const std::byte*)) {
  const Tensor data = Tensor::zeros(DType::kU8, {int64_t{512} << 20});
  const int64_t pieces = static_cast<int64_t>(data.bytes()) / kPieceBytes;
  uint64_t total = 0;
  const double time = seconds_of(
      [&] {
        stream.parallel_tasks(pieces, [&](int64_t i, int) {
          __atomic_fetch_add(&total, sum_piece(data.raw<std::byte>() + i * kPieceBytes), __ATOMIC_RELAXED);
        });
      },
      10);
  return total == 0 ? static_cast<double>(data.bytes()) / time : 0;
}

#if defined(__x86_64__)
#define SW_WIDE __attribute__((target("avx512f,avx512bf16,avx512vnni")))
SW_WIDE uint64_t sum_wide(const std::byte* piece) {
  __m512i sums[4] = {};
  for (int64_t i = 0; i < kPieceBytes; i += 256) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) sums[j] = _mm512_xor_si512(sums[j], _mm512_loadu_si512(piece + i + 64 * j));
  }
  uint64_t words[32];
  std::memcpy(words, sums, sizeof(words));
  uint64_t total = 0;
  for (const uint64_t word : words) total |= word;
  return total;
}
SW_WIDE void spin_bf16(int64_t steps) {
  __m512 sums[16];
  for (auto& s : sums) s = _mm512_setzero_ps();
  const __m512bh one = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (auto& s : sums) {
      s = _mm512_dpbf16_ps(s, one, one);
      __asm__ volatile("" : "+v"(s));
    }
  }
}
SW_WIDE void spin_int8(int64_t steps) {
  typedef int Sums __attribute__((vector_size(64)));  // GCC 12 spills __m512i sums
  Sums sums[16];
  for (auto& s : sums) s = Sums{};
  const __m512i one = _mm512_set1_epi8(1);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (auto& s : sums) {
      s = (Sums)_mm512_dpbusd_epi32((__m512i)s, one, one);
      __asm__ volatile("" : "+v"(s));
    }
  }
}
SW_WIDE void spin_f32(int64_t steps) {
  __m512 sums[16];
  for (auto& s : sums) s = _mm512_setzero_ps();
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 16
    for (auto& s : sums) {
      s = _mm512_fmadd_ps(one, one, s);
      __asm__ volatile("" : "+v"(s));
    }
  }
}

// Products of whole register tiles: 16 rows, 16 outputs, 64 bytes of K.
#define SW_SPIN_TILES(instruction)                                                                         \
  struct alignas(64) {                                                                                     \
    uint8_t palette = 1, start_row = 0, reserved[14] = {};                                                 \
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};                                             \
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};                                                   \
  } config;                                                                                                \
  __asm__ volatile("ldtilecfg (%0)" : : "r"(&config) : "memory");                                          \
  for (int64_t i = 0; i < steps; ++i)                                                                      \
    __asm__ volatile(instruction " %tmm6, %tmm4, %tmm0\n" instruction " %tmm7, %tmm4, %tmm1\n" instruction \
                                 " %tmm6, %tmm5, %tmm2\n" instruction " %tmm7, %tmm5, %tmm3");             \
  __asm__ volatile("tilerelease")
void spin_tiles_bf16(int64_t steps) { SW_SPIN_TILES("tdpbf16ps"); }
void spin_tiles_int8(int64_t steps) { SW_SPIN_TILES("tdpbsud"); }

// Instructions a second on all threads.
double peak(tensor::Stream& stream, void (*spin)(int64_t)) {
  constexpr int64_t kSteps = 1 << 20;
  const int64_t parts = stream.threads() * 8;
  const double time = seconds_of([&] { stream.parallel_tasks(parts, [&](int64_t, int) { spin(kSteps); }); }, 5);
  return static_cast<double>(kSteps * 16 * parts) / time;
}
#endif

struct Shape {
  int64_t n, k;
};
std::vector<Shape> layer_shapes = {{2048, 1536}, {1536, 1536}, {17920, 1536}, {1536, 8960}};

// As checkpoints have tensors: at any multiple of 8 bytes.
constexpr int64_t kOffset = 8;

Tensor stored_weight(Shape shape, DType dtype) {
  const int64_t count = shape.n * shape.k * static_cast<int64_t>(tensor::size_of(dtype));
  Tensor w(DType::kU8, {count + kOffset});
  uint32_t state = 1;
  auto* bytes = w.raw<uint8_t>() + kOffset;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525 + 1013904223;
    bytes[i] = static_cast<uint8_t>(state >> 24);
    if (dtype == DType::kBF16 && i % 2 == 1) bytes[i] = static_cast<uint8_t>(0x3c | (state >> 24 & 0x81));
    if (dtype == DType::kF8E4M3 && (bytes[i] & 0x7f) == 0x7f) bytes[i] = 0;
  }
  return w;
}

struct Case {
  const char* name;
  DType dtype;
  Precision precision;
  double peak;           // multiply-adds a second
  bool in_rows = false;  // as while the panels are not there yet
};

// Packs nothing.
class Never : public kernels::PackLater {
 public:
  bool take(const tensor::TensorView&) override { return true; }
  void add(const kernels::PackRequest&, std::shared_ptr<kernels::LateWeight>) override {}
};

struct Layer {
  std::vector<PackedLinear> weights;
  std::vector<Tensor> stored;
};

Layer make_layer(const Case& c, tensor::Stream& stream, double* pack_rate) {
  Never never;
  const kernels::PackScope scope(nullptr, c.in_rows ? &never : nullptr);
  Layer layer;
  double bytes = 0, time = 0;
  for (const Shape shape : layer_shapes) {
    Tensor w = stored_weight(shape, c.dtype);
    const Tensor scales = Tensor::zeros(DType::kF32, {(shape.n + 127) / 128, (shape.k + 127) / 128});
    std::fill_n(scales.as<float>(), scales.shape().elements(), 0.01f);
    kernels::WeightSource source;
    source.weight = tensor::TensorView(w.view().data + kOffset, c.dtype, {shape.n, shape.k});
    if (c.dtype == DType::kF8E4M3) source.scales = scales;
    PackedLinear packed;
    time += seconds_of([&] { packed = *kernels::pack_linear(source, c.precision, stream); }, 2);
    bytes += static_cast<double>(w.bytes());
    if (c.in_rows) layer.stored.push_back(std::move(w));
    layer.weights.push_back(std::move(packed));
  }
  *pack_rate = bytes / time;
  return layer;
}

void run_case(const Case& c, tensor::Stream& stream, double bandwidth) {
  double pack_rate = 0;
  std::vector<Layer> layers;
  for (int i = 0; i < 6; ++i) layers.push_back(make_layer(c, stream, &pack_rate));
  double bytes = 0, products = 0;
  for (const auto& layer : layers) {
    for (const PackedLinear& w : layer.weights) {
      bytes += static_cast<double>(w.bytes());
      products += static_cast<double>(w.n * w.k);
    }
  }
  for (const int64_t m : {1, 4, 16, 64, 512}) {
    std::vector<Tensor> x, y;
    for (const Shape shape : layer_shapes) {
      x.push_back(Tensor::zeros(DType::kF32, {m, shape.k}));
      for (int64_t i = 0; i < m * shape.k; ++i) x.back().as<float>()[i] = static_cast<float>(i % 17) * 0.1f - 0.8f;
      y.emplace_back(DType::kF32, tensor::Shape{m, shape.n});
    }
    const size_t used = m > 16 ? 2 : layers.size();
    const double share = static_cast<double>(used) / static_cast<double>(layers.size());
    const double time = seconds_of(
        [&] {
          for (size_t l = 0; l < used; ++l) {
            for (size_t i = 0; i < x.size(); ++i) kernels::linear(x[i], layers[l].weights[i], y[i], stream);
          }
        },
        m > 16 ? 4 : 12);
    const double memory_floor = bytes * share / bandwidth;
    const double compute_floor = products * share * static_cast<double>(m) / c.peak;
    fmt::print("{:<20} M {:>3}  {:8.3f} ms  {:7.1f} GB/s  {:8.1f} GFLOP/s   of bandwidth {:5.1f}%   of peak {:5.1f}%\n",
               c.name, m, time * 1e3, bytes * share / time / 1e9,
               2 * products * share * static_cast<double>(m) / time / 1e9, 100 * memory_floor / time,
               100 * compute_floor / time);
  }
  fmt::print("{:<20} packed at {:.2f} GB/s of source\n", c.name, pack_rate / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  if (Shape only{}; argc > 3) {
    if (std::sscanf(argv[3], "%ldx%ld", &only.n, &only.k) != 2) {
      fmt::print(stderr, "linear_bench: expected NxK, found {}\n", argv[3]);
      return 2;
    }
    layer_shapes = {only};
  }
  tensor::Stream stream(argc > 1 ? std::atoi(argv[1]) : 0);
  one_thread = stream.threads() == 1;
  double bandwidth = read_bandwidth(stream, sum_plain);
  double bf16 = 1e12, int8 = 1e12, f32 = 1e12;
#if defined(__x86_64__)
  const kernels::IsaLevel best = kernels::best_isa();
  if (best == kernels::IsaLevel::kAvx512Bf16 || best == kernels::IsaLevel::kAmx) {
    bandwidth = std::max(bandwidth, read_bandwidth(stream, sum_wide));
    bf16 = peak(stream, spin_bf16) * 32;
    int8 = peak(stream, spin_int8) * 32;  // two instructions for each 64 products: x is 16 bits wide
    f32 = peak(stream, spin_f32) * 16;
  }
  if (kernels::active_isa() == kernels::IsaLevel::kAmx) {  // peak() counts 16 instructions a step; these are four
    bf16 = peak(stream, spin_tiles_bf16) / 4 * 16 * 16 * 32;
    int8 = peak(stream, spin_tiles_int8) / 4 * 16 * 16 * 64 / 2;
  }
#endif
  fmt::print("{} threads, {}: reads {:.1f} GB/s; bf16 {:.0f}, int8 {:.0f}, f32 {:.0f} GFLOP/s\n", stream.threads(),
             name_of(kernels::active_isa()), bandwidth / 1e9, 2 * bf16 / 1e9, 2 * int8 / 1e9, 2 * f32 / 1e9);
  const Case cases[] = {{"bf16", DType::kBF16, Precision::kBf16, bf16},
                        {"int8", DType::kBF16, Precision::kInt8, int8},
                        {"w8a8", DType::kBF16, Precision::kW8A8, 2 * int8},
                        {"f8 blocks", DType::kF8E4M3, Precision::kBf16, bf16},
                        {"fp32 of bf16", DType::kBF16, Precision::kFp32, f32},
                        {"bf16 in rows", DType::kBF16, Precision::kBf16, bf16, true},
                        {"int8 in rows", DType::kBF16, Precision::kInt8, int8, true},
                        {"f8 blocks in rows", DType::kF8E4M3, Precision::kBf16, bf16, true},
                        {"fp32 of bf16 in rows", DType::kBF16, Precision::kFp32, f32, true}};
  for (const Case& c : cases) {
    if (argc < 3 || std::strstr(c.name, argv[2]) != nullptr) run_case(c, stream, bandwidth);
  }
}
