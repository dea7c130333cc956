// Experts' FP8 products where each expert gets few rows (decode). The weight is the tensor cores' first operand, so
// that a tile is as tall as the weight is read and as narrow as there are rows: what moves besides the weight is
// little. Rows are blocks of 16 or 32, each of one expert; or, of up to kFewTokensMax tokens, one block of all tokens
// for every expert that any of them chose.
//
// The caller owns all memory; any thread. Not its job: sorting rows by expert, quantising x (grouped_experts.h).
// Tolerance against float64 on the quantised operands: relative norm 4e-3, h before its quantisation 8e-3. Bits depend
// on how many experts the other rows use: the last tiles are split along K (gemm_fp8_few_rows_work.cuh).
#pragma once

#include "kernels/cuda/gemm_types.h"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {

constexpr int kFewTokensMax = 16;

// The routing of few tokens. Complete before the kernel in front of the product has begun its work.
struct ExpertChoice {
  int tokens = 0;  // 0: rows lie in blocks by expert
  int slots = 0;
  const int32_t* ids = nullptr;    // [tokens, slots]
  const float* weights = nullptr;  // [tokens, slots]
  bool shared = false;             // and expert number `experts`, of weight 1
};

enum class FewRowsOutput : uint8_t {
  kGates,  // the first n / 2 outputs are gates, the others ups: h = silu(gate) * up, quantised; n a multiple of 256
  kRows,   // y [m, n] in bf16
  kSum,    // of few tokens: y[token] (+)= the sum over experts; the weights are in the scales of x
};

struct Fp8FewRowsProduct {
  int experts = 0;
  int m = 0;           // rows of x: blocks of block_rows; with few tokens and kGates the tokens
  int block_rows = 0;  // 16 or 32; 16 for few tokens
  // Of each block the expert, and how many of its rows are to be written; how many blocks are in use. Complete before
  // the kernel in front of this one has begun its work: weights are read while that one ends.
  const int32_t* block_experts = nullptr;
  const int32_t* block_counts = nullptr;
  const int32_t* blocks_used = nullptr;
  unsigned* claims = nullptr;  // 0 then: how many tiles have been claimed
  ExpertChoice choice;         // instead
  QuantizedActivations x;      // [m, k]
  Weight weight;               // of one expert, all one after another: kF8Block, scale_rows 128; n a multiple of 256
  const void* shared_data = nullptr;  // of one expert more, number `experts`, that lies elsewhere; null: none
  const void* shared_scales = nullptr;
  FewRowsOutput output = FewRowsOutput::kRows;
  QuantizedActivations h;  // kGates: [blocks * block_rows, n / 2]; of few tokens the scales are times their weights
  void* y = nullptr;
  Scalar y_type = Scalar::kBf16;  // kBf16 or kF32; kRows: bf16
  int64_t y_stride = 0;
  bool add = false;              // kSum
  void* workspace = nullptr;     // few_rows_workspace_bytes()
  unsigned* counters = nullptr;  // [kFewRowsCounters], zero before and after; one array a stream
};

constexpr int kFewRowsCounters = 1024;

// Whether few tokens with so many slots each can be taken as they lie.
bool few_rows_take_tokens(int tokens, int slots, int experts);
// y [m, n] (+)= x W^T of up to kFewTokensMax rows: one expert that all have. y, workspace and counters are left to set.
Fp8FewRowsProduct dense_few_rows(int m, const QuantizedActivations& x, const Weight& weight);
size_t few_rows_workspace_bytes(int block_rows);
cudaError_t launch_fp8_few_rows(const Fp8FewRowsProduct& product, cudaStream_t stream);

}  // namespace spillway::kernels::cuda
