// Dense products by cuBLASLt whose epilogue does what follows: y = activation(x W^T + bias + c), in any of the types
// that encoders and convolutions of one pixel compute in. The fastest of the library's algorithms is measured when a
// shape first comes, on the caller's own memory (y is written again and again: it must not be an input); while the
// stream records a graph the library's first choice is taken. Belongs to one thread; the workspace is the caller's.
#pragma once

#include <memory>

#include "kernels/activation.h"
#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

enum class LtType : uint8_t { kF32, kTf32, kBf16, kF16, kE4M3 };  // kTf32: float32 in memory

struct EpilogueProduct {
  LtType type = LtType::kF16;  // of x and W
  LtType y_type = LtType::kF16;
  int m = 0, n = 0, k = 0;
  const void* x = nullptr;  // [m, k], rows x_stride apart
  int64_t x_stride = 0;
  const void* w = nullptr;  // [n, k], rows w_stride apart
  int64_t w_stride = 0;
  const void* bias = nullptr;  // [n] of bias_type, or null
  LtType bias_type = LtType::kF16;
  Activation activation = Activation::kNone;  // kNone, kRelu, kGeluTanh
  const void* c = nullptr;                    // [m, n] of y's type, rows y_stride apart, or null
  void* y = nullptr;
  int64_t y_stride = 0;
  // Of e4m3: what the product of stored values is to be multiplied by; and device memory, aligned to 16 bytes, of what
  // y is.
  float alpha = 1;
  const float* y_scale = nullptr;
};

class EpilogueProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  EpilogueProducts();
  ~EpilogueProducts();

  // cudaErrorNotSupported where cuBLASLt has no algorithm, cudaErrorUnknown where it fails otherwise.
  cudaError_t run(const EpilogueProduct& product, void* workspace, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway::kernels::cuda
