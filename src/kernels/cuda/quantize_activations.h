// Activations to e4m3 by token and group of 128 channels, as the FP8 products read them (DeepSeek's scheme):
// amax over the group, at least 1e-4; scale = amax / 448; q = x / scale, rounded to nearest even.
//
// q: e4m3 [m, k]; k a multiple of 128. scales: float32 [k / 128, scales_stride], scale of row i and group g at
// [g * scales_stride + i]; scales_stride >= m and a multiple of 4. Exact against the same arithmetic on the CPU.
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

struct QuantizedActivations {
  void* q = nullptr;
  float* scales = nullptr;
  int64_t scales_stride = 0;
};

// Where the values come from.
//   kPlain    x [m, k]
//   kRmsNorm  x / rms(x) * norm_weight, rounded to bf16 as a norm of its own leaves it
//   kSwiGlu   silu(x[:, j]) * x[:, k + j]: x is [m, 2 k]
enum class QuantizeSource : uint8_t { kPlain, kRmsNorm, kSwiGlu };

struct QuantizeActivations {
  QuantizeSource source = QuantizeSource::kPlain;
  int m = 0;
  int k = 0;
  const void* x = nullptr;
  Scalar x_type = Scalar::kBf16;  // kBf16 or kF32
  int64_t x_stride = 0;
  const void* norm_weight = nullptr;  // kRmsNorm: [k]
  Scalar norm_type = Scalar::kBf16;
  float norm_eps = 1e-6f;
  // Masked experts: x is [experts, rows_max, ...] with m = experts * rows_max; only the first counts[e] rows of each
  // expert are read and written. Null: all m rows.
  const int32_t* counts = nullptr;
  int rows_max = 0;
  // Experts' rows in an order of their own: item i of the m goes to row rows[i] of out, whose scales_stride is at least
  // the number of rows there; it comes from row i / repeat of x (m a multiple of repeat), or with repeat 0 from row
  // rows[i]. Null: row i to row i.
  const int32_t* rows = nullptr;
  int repeat = 1;
  QuantizedActivations out;
  // The next kernel has every multiprocessor to itself (no two of its blocks fit in one) and reads weights first: it is
  // let start before this one's own wait, so that they arrive meanwhile.
  bool starts_next = false;
};

cudaError_t launch_quantize_activations(const QuantizeActivations& args, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
