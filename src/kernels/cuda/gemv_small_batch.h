// Products of few rows with a weight that is streamed once: decode. Bound by the weight's bytes.
//
// Each output is one fixed chain of sums over K (eight interleaved slices, added in order), so a row's bits depend on
// its own x and the weight only, not on the other rows; nor on m where same_bits is asked for. Tolerance against
// float64 on the stored weight: relative norm 4e-3 (x is rounded to bf16 where it is not bf16 yet; with a fused norm,
// x times the norm's weight is rounded to bf16; FP8 weights multiply x in float16, scaled for its range, int8 and int4
// in 16 bits for each group of 128 where rows are few). Float32 or normalised rows are kept in shared memory: where m *
// k * 2 bytes are more than about 64 KB, the tokens go in several launches, each of which reads the weight. Runs on
// sm_80 and later; the asynchronous path needs sm_90.
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

constexpr int kSmallBatchRowsMax = 32;

struct SmallBatchProduct {
  int m = 0;                          // 1 .. kSmallBatchRowsMax
  const void* x = nullptr;            // [m, k]
  Scalar x_type = Scalar::kBf16;      // kBf16 or kF32
  int64_t x_stride = 0;               // elements from row to row
  const void* norm_weight = nullptr;  // [k]: x is RMS-normalised first, x / rms(x) * norm_weight; null: x as it is
  Scalar norm_type = Scalar::kBf16;   // kBf16 or kF32
  float norm_eps = 1e-6f;
  Weight weight;
  const float* bias = nullptr;  // [n] or null
  Epilogue epilogue = Epilogue::kStore;
  void* y = nullptr;              // [m, n], with kSwiGlu [m, n / 2]; does not overlap x
  Scalar y_type = Scalar::kBf16;  // kBf16 or kF32
  int64_t y_stride = 0;
  // Programmatic dependent launch: the kernel may start while the stream's previous kernel still runs; it reads nothing
  // but the weight and the norm's weight before that one has finished. Safe after any kernel. With kAdd its blocks do
  // not fit twice into a multiprocessor, so that they lie evenly although a small kernel still runs.
  bool overlap = true;
  bool same_bits = false;  // of a row, for every m: what is faster for few rows only is left out
  int blocks = 0;          // of a multiprocessor at once, 1 or 2; 0: chosen
};

cudaError_t launch_small_batch(const SmallBatchProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
