// The chosen experts of one or a few tokens (decode of batch 1, with or without drafts): each expert's rows are
// streamed for its token alone, straight from the routing's ids on the device. For many tokens the grouped products
// read each expert once (gemm_fp8.h).
//
// With E experts, S = tokens * slots, weights stacked as [E, n, k] (kF8Block: scales [E, ceil(n / scale_rows),
// ceil(k / 128)]; kBf16 likewise; not the integer formats):
//   gate_up  h[s] = silu(Wg x[s / slots]) * (Wu x[s / slots]) of expert ids[s]; weight n = 2 * inter; h [S, inter]
//   down     y[i] (+)= sum over slots j in order of weights[i, j] * W h[i * slots + j] of expert ids[i, j]; weight n =
//   hidden
// A token's bits depend on its own row, ids and weights only. Tolerances as in gemv_small_batch.h; sm_90.
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

constexpr int kExpertTokensMax = 4096;

struct ExpertProduct {
  int tokens = 0;                  // 1 .. kExpertTokensMax
  int slots = 0;                   // experts a token
  int experts = 0;                 // that the weight holds
  const int32_t* ids = nullptr;    // [tokens, slots]; a negative id counts as weight zero in down and leaves h zero
  const float* weights = nullptr;  // [tokens, slots]; down only
  const void* x = nullptr;         // gate_up: [tokens, k]; down: h [tokens * slots, k]
  Scalar x_type = Scalar::kBf16;   // kBf16 or kF32
  int64_t x_stride = 0;
  Weight weight;      // of one expert; data and scales of expert 0
  void* y = nullptr;  // gate_up: h [tokens * slots, n / 2]; down: [tokens, n]
  Scalar y_type = Scalar::kBf16;
  int64_t y_stride = 0;
  bool add = false;  // down: y += instead of y =
};

cudaError_t launch_experts_gate_up(const ExpertProduct& product, cudaStream_t stream);
cudaError_t launch_experts_down(const ExpertProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
