// Drawing tokens from rows of logits; contract in kernels/sampling.h.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/sampling.h"

namespace spillway::kernels::cuda {

cudaError_t launch_draw_rows(const float* logits, int64_t stride, const RowDraw* draws, int rows, int32_t* tokens,
                             cudaStream_t stream);

}  // namespace spillway::kernels::cuda
