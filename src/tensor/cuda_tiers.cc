// Which numbers a GPU computes in, by compute capability; in every build, so that doctor can say it without CUDA.
#include <algorithm>

#include "tensor/cuda/cuda.h"

namespace spillway::tensor::cuda {

int code_for(int chip, std::span<const int> machine, std::span<const int> portable) {
  int found = 0;
  for (const int code : machine) {
    if (code / 10 == chip / 10 && code <= chip) found = std::max(found, code);
  }
  if (found > 0) return found;  // the driver takes machine code first
  for (const int code : portable) {
    if (code <= chip) found = std::max(found, code);
  }
  return found;
}

std::string precision_tier(int capability) {
  if (capability == 90) return "bf16, and FP8 blocks natively";
  if (capability >= 80) return "bf16; FP8 weights are widened in the kernels";
  if (capability >= 75) return "fp16; FP8 weights are widened at load";
  if (capability >= 70) return "fp16, by builds with CUDA 12; FP8 weights are widened at load";
  return "too old: 7.0 is the least";
}

}  // namespace spillway::tensor::cuda
