// Tokens on the device: drawn from a step's logits, carried into the next step's ids. Contracts in kernels/sampling.h.
#include "kernels/cuda/layers.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sampling.h"

namespace spillway::kernels::cuda {
namespace {

// A row whose logits were not finite drew -1: the host ends that request, and meanwhile its next step reads token 0.
__global__ void carry_rows(const int32_t* carried, const int32_t* drawn, int32_t* ids, int count) {
  take_turn();
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count && carried[i] >= 0) ids[i] = max(0, drawn[carried[i]]);
}

}  // namespace

void draw_rows(tensor::TensorView logits, const RowDraw* draws, tensor::TensorView tokens, tensor::Stream& stream) {
  const int64_t rows = tokens.elements();
  SW_CHECK(logits.shape[0] >= rows, "more draws than rows of logits");
  if (rows == 0) return;
  tensor::cuda::check(
      launch_draw_rows(logits.as<float>(), logits.shape[1], draws, int(rows), tokens.as<int32_t>(), native(stream)),
      "draw_rows");
}

void carry_tokens(tensor::TensorView carried, tensor::TensorView drawn, tensor::TensorView ids,
                  tensor::Stream& stream) {
  const int64_t count = ids.elements();
  SW_CHECK(carried.elements() == count, "carried " + to_string(carried.shape));
  if (count == 0) return;
  launch_row_kernel("carry_rows", carry_rows, unsigned((count + 255) / 256), 256, 0, stream, carried.as<int32_t>(),
                    drawn.as<int32_t>(), ids.as<int32_t>(), int(count));
}

}  // namespace spillway::kernels::cuda
