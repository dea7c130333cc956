#include "kernels/attention.h"

namespace spillway::kernels {

HeadRows head_rows(tensor::TensorView tensor) {
  SW_CHECK(tensor.shape.rank() == 3, "expected [T, heads, dim], found " + to_string(tensor.shape));
  return {tensor.as<float>(), tensor.shape[1] * tensor.shape[2], 0, tensor.shape[2]};
}

}  // namespace spillway::kernels
