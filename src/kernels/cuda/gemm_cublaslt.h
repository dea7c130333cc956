// Dense products by cuBLASLt, for many rows: y = x W^T (+ bias) (+ y).
//
// A LtProducts belongs to one thread. Plans (descriptors and the heuristic's algorithm) are made at the first call of a
// shape and kept; run() afterwards only launches, so it may be captured in a graph. The workspace is the caller's.
// Deterministic: cuBLASLt's kernels give the same bits for the same call; a row's bits may depend on m.
#pragma once

#include <memory>
#include <string>

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

// kF32 and kTf32: x, W and y float32. kFp8: e4m3 with scales of activations by 128 of K and of weights by 128 x 128
// (sm_90; k / 128 a multiple of 4, m of 4).
enum class DenseCompute : uint8_t { kBf16, kF16, kF32, kTf32, kFp8 };

struct DenseProduct {
  DenseCompute compute = DenseCompute::kBf16;
  int m = 0;
  int n = 0;
  int k = 0;
  const void* x = nullptr;  // [m, k], row stride x_stride
  int64_t x_stride = 0;
  const void* w = nullptr;  // [n, k], row stride k; with w_transposed [k, n], row stride n
  bool w_transposed = false;
  const float* x_scales = nullptr;  // kFp8: [k / 128, m]
  const float* w_scales = nullptr;  // kFp8: [ceil(n / 128), k / 128]
  const void* bias = nullptr;       // [n] in y's type, or null
  bool accumulate = false;          // y += instead of y =
  void* y = nullptr;                // [m, n], row stride y_stride
  Scalar y_type = Scalar::kBf16;
  int64_t y_stride = 0;
  // Products by head: batch > 1 repeats with these distances in elements.
  int batch = 1;
  int64_t x_batch = 0;
  int64_t w_batch = 0;
  int64_t y_batch = 0;
};

class LtProducts {
 public:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  LtProducts();
  ~LtProducts();
  LtProducts(LtProducts&&) noexcept;
  LtProducts& operator=(LtProducts&&) noexcept;

  // cudaErrorNotSupported where cuBLASLt has no algorithm, cudaErrorUnknown where it fails otherwise.
  cudaError_t run(const DenseProduct& product, void* workspace, size_t workspace_bytes, cudaStream_t stream);

  // The algorithm of a shape by measurement instead of the heuristic's word, where the call is not captured: some runs
  // of a dozen candidates into memory of their own, past the L2 cache. x and w are read, y is not touched by them.
  void measure(bool wanted);
  // Algorithms measured before (learned()), taken where the library still accepts them.
  void remember(const std::string& lines);
  std::string learned() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway::kernels::cuda
