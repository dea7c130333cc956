// Pages and batches as CUDA kernels see them: plain values with device pointers, passed to kernels by value. The
// device's counterpart of kernels/attention.h and kernels/mla.h. Filled by the step (nn/batch.h); any thread.
// Not its job: who owns the memory, what a page id means.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace spillway::kernels::cuda {

// Keys and values of one layer. Page p is at base + p * page_stride_bytes and holds
//   keys   [kv_heads][page_tokens][dim]
//   values [kv_heads][page_tokens][dim]
// Positions not yet written hold anything, NaN included: mask, never multiply by zero.
struct KvPages {
  void* base = nullptr;
  int64_t page_stride_bytes = 0;
  tensor::DType dtype = tensor::DType::kBF16;  // bf16, f16 or f32
  int page_tokens = 64;
  int kv_heads = 1;
  int dim = 128;

  // Elements from a page's first key to its first value.
  int64_t values_offset() const { return int64_t{kv_heads} * page_tokens * dim; }
};

// Latents of one layer. Page p is at base + p * page_stride_bytes: [page_tokens][lora_dim + rope_dim], the normalised
// latent and then the rotated key that all heads share.
struct LatentPages {
  void* base = nullptr;
  int64_t page_stride_bytes = 0;
  tensor::DType dtype = tensor::DType::kBF16;  // bf16, f16 or f32
  int page_tokens = 64;
  int lora_dim = 512;
  int rope_dim = 64;
};

// The rows of one step: new tokens of `sequences` sequences, one sequence after another. The numbers are known on the
// host and fixed within a captured graph (they are its bucket); the arrays lie in fixed device buffers that one copy
// fills before each step, so a kernel reads lengths from them and never from the host. A bucket is filled up with
// sequences of one row at position 0 on a page that nobody reads.
struct Batch {
  int rows = 0;                           // T: of all sequences
  int sequences = 0;                      // S
  int rows_max = 1;                       // most rows of one sequence: 1 in a plain decode step, 2 with one draft each
  int pages_max = 0;                      // row stride of page_table
  int context_max = 0;                    // no context is longer (the bucket's bound, not this step's longest)
  const int32_t* page_table = nullptr;    // [S][pages_max]: page ids in order
  const int32_t* row_begin = nullptr;     // [S + 1]: sequence s has rows [row_begin[s], row_begin[s + 1])
  const int32_t* contexts = nullptr;      // [S]: tokens in the pages, those of this step included
  const int32_t* positions = nullptr;     // [T]: a row at position p attends to positions 0..p
  const int32_t* row_sequence = nullptr;  // [T]
};

}  // namespace spillway::kernels::cuda
