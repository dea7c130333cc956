// The device's side of kernels/sampling.h: tokens from rows of logits, the same draws as engine/sampler.h makes from
// the same logits (greedy: the lowest token of the largest logit; else temperature, top_k, top_p of what is left,
// min_p, and the noise of base/draw_noise.h). Allocates nothing, may be captured; launched to overlap the kernel before
// it, whose end it waits for before it reads.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/sampling.h"

namespace spillway::kernels::cuda {

constexpr int kDrawVocabMax = 1 << 18;

// logits [rows, stride]; draws on the device; tokens [rows]: -1 where no logit is finite, untouched where vocab is 0.
cudaError_t launch_draw_rows(const float* logits, int64_t stride, const RowDraw* draws, int rows, int32_t* tokens,
                             cudaStream_t stream);

}  // namespace spillway::kernels::cuda
