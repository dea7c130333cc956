// The routed experts of a layer, from the routing's ids to their weighted sum, without a word to the host:
//   y[t] (+)= sum over slots s in order of weights[t, s] * down_e(silu(gate_e x[t]) * up_e x[t]), e = ids[t, s]
//
// Streamed (weights the other ways do not take): each slot's expert is read for its token
// (gemv_experts.h). Grouped (kF8Block with scale_rows 128, hidden and inter multiples of 128): tokens are sorted by
// expert into blocks of rows and quantised, each expert is read once: blocks of 64 or 128 rows (gemm_fp8.h), of 16 or
// 32 where experts get few (gemm_fp8_few_rows.h); up to 16 tokens are not sorted, the products take them as they lie.
// kGrouped never takes the latter, whose bits differ: there, and streamed, a token's bits depend on its own row, ids
// and weights only. Before sm_90 experts_portable.h takes all. ids in [0, experts). Tolerance: streamed, as
// gemv_small_batch.h; grouped, relative norm 5e-2 (activations in FP8).
#pragma once

#include "kernels/cuda/gemm_types.h"

namespace spillway::kernels::cuda {

// kFewRows: grouped, in blocks of 16 or 32 rows where these serve, for any number of tokens.
enum class ExpertsWay : uint8_t { kChoose, kStreamed, kGrouped, kFewRows };

struct ExpertsMlp {
  int tokens = 0;
  int slots = 0;
  int experts = 0;
  int hidden = 0;
  int inter = 0;
  const void* x = nullptr;        // [tokens, hidden]
  Scalar x_type = Scalar::kBf16;  // kBf16 or kF32
  int64_t x_stride = 0;
  const int32_t* ids = nullptr;    // [tokens, slots]
  const float* weights = nullptr;  // [tokens, slots]
  Weight gate_up;                  // one expert's [2 * inter, hidden]; all experts one after another
  Weight down;                     // one expert's [hidden, inter]
  // Of an expert of every token, of weight 1, added last, of the same shapes and formats; where experts_take_shared()
  // says so. data null: none.
  Weight shared_gate_up, shared_down;
  void* y = nullptr;             // [tokens, hidden]
  Scalar y_type = Scalar::kF32;  // kBf16 or kF32
  int64_t y_stride = 0;
  bool add = true;
  ExpertsWay way = ExpertsWay::kChoose;
  unsigned* counters = nullptr;  // [kFewRowsCounters] of gemm_fp8_few_rows.h, zero before and after; one array a stream
};

// Whether the weights and the chip are such as the grouped way takes.
bool experts_groupable(const ExpertsMlp& mlp);

// Whether a call of so many tokens may have a shared expert of the same shapes: few, in the grouped way.
bool experts_take_shared(const ExpertsMlp& mlp, int tokens);

// Bytes for any call of up to `tokens` tokens with the other sizes of mlp.
size_t experts_workspace_bytes(const ExpertsMlp& mlp, int tokens);

// workspace: aligned to 256 bytes; its contents need not survive.
cudaError_t launch_experts(const ExpertsMlp& mlp, void* workspace, size_t workspace_bytes, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
