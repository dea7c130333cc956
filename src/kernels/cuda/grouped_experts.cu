#include <algorithm>

#include "kernels/cuda/experts_portable.h"
#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/gemv_experts.h"
#include "kernels/cuda/grouped_experts.h"
#include "kernels/cuda/quantize_activations.h"

namespace spillway::kernels::cuda {
bool experts_groupable(const ExpertsMlp& m) {
  const auto fits = [](const Weight& w) { return w.format == WeightFormat::kF8Block && w.scale_rows == 128; };
  return compute_capability() == 90 && fits(m.gate_up) && fits(m.down) && m.hidden % 128 == 0 && m.inter % 128 == 0;
}

namespace {

constexpr int kLayoutThreads = 1024;
constexpr int kSharedTokensMax = 32;  // a shared expert's rows are two blocks then
// Rows an expert in the mean up to which blocks of 16, 32 and 64 rows serve.
constexpr int kMeanRows16 = 10, kMeanRows32 = 24, kMeanRows64 = 96;

// Where every slot's row lies among the rows sorted by expert.
struct Layout {
  int items;  // tokens * slots
  int slots;  // of a token, the shared expert's, which is the last, included
  int routed;
  int experts;
  int block_rows;
  int blocks;  // capacity
  const int32_t* ids;
  int32_t* rows;           // [items]
  int32_t* block_experts;  // [blocks], -1 behind the last one used
  int32_t* block_counts;   // [blocks]: rows of each that hold a slot
  int32_t* used;           // of the blocks; behind it what the two products count claims with
};

__device__ __forceinline__ int expert_of(const Layout& a, int item) {
  const int slot = item % a.slots;
  return slot == a.routed ? a.experts - 1 : a.ids[item / a.slots * a.routed + slot];
}

// One block. Rows of an expert come in any order: no result depends on it.
__global__ void __launch_bounds__(kLayoutThreads) layout_kernel(const Layout a) {
  extern __shared__ int32_t next_row[];  // [experts]: first counts, then the next free row
  ptx::wait_for_previous();
  ptx::launch_dependents();
  for (int e = threadIdx.x; e < a.experts; e += kLayoutThreads) next_row[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < a.items; i += kLayoutThreads) atomicAdd(&next_row[expert_of(a, i)], 1);
  __syncthreads();
  if (threadIdx.x < 32) {
    int before = 0;  // blocks
    for (int first = 0; first < a.experts; first += 32) {
      const int e = first + static_cast<int>(threadIdx.x);
      const int count = e < a.experts ? next_row[e] : 0, blocks = (count + a.block_rows - 1) / a.block_rows;
      int sum = blocks;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(~0u, sum, step);
        if (static_cast<int>(threadIdx.x) >= step) sum += lower;
      }
      const int start = before + sum - blocks;
      for (int b = 0; b < blocks; ++b) {
        a.block_experts[start + b] = e;
        a.block_counts[start + b] = min(a.block_rows, count - b * a.block_rows);
      }
      if (e < a.experts) next_row[e] = start * a.block_rows;
      before += __shfl_sync(~0u, sum, 31);
    }
    for (int b = before + static_cast<int>(threadIdx.x); b < a.blocks; b += 32) a.block_experts[b] = -1;
    if (threadIdx.x == 0) a.used[0] = before, a.used[1] = a.used[2] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < a.items; i += kLayoutThreads) a.rows[i] = atomicAdd(&next_row[expert_of(a, i)], 1);
}

struct Combine {
  int tokens, slots, routed, hidden;
  const __nv_bfloat16* from;  // [rows, hidden]
  const int32_t* rows;
  const float* weights;
  void* y;
  Scalar y_type;
  int64_t y_stride;
  bool add;
};

__global__ void __launch_bounds__(128) combine_kernel(const Combine a) {
  ptx::wait_for_previous();
  ptx::launch_dependents();
  const int token = blockIdx.y, column = (static_cast<int>(blockIdx.x) * 128 + static_cast<int>(threadIdx.x)) * 8;
  if (column >= a.hidden) return;
  float sum[8] = {};
  for (int s = 0; s < a.slots; ++s) {
    const int64_t row = a.rows[token * a.slots + s];
    const float weight = s == a.routed ? 1.0f : a.weights[token * a.routed + s];
    float v[8];
    load_8(a.from, row * a.hidden + column, Scalar::kBf16, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += weight * v[i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) store_one(a.y, a.y_type, token * a.y_stride + column + i, sum[i], a.add);
}

bool use_groups(const ExpertsMlp& m, int tokens) {
  if (m.way != ExpertsWay::kChoose) return m.way != ExpertsWay::kStreamed;
  return experts_groupable(m) && tokens > 0;
}

bool has_shared(const ExpertsMlp& m) { return m.shared_gate_up.data != nullptr; }
int slots_of(const ExpertsMlp& m) { return m.slots + (has_shared(m) ? 1 : 0); }
int experts_of(const ExpertsMlp& m) { return m.experts + (has_shared(m) ? 1 : 0); }

// Narrow blocks while an expert gets few rows. Those below 64 have other bits, so the grouped way has none.
int block_rows(const ExpertsMlp& m, int tokens) {
  const int64_t items = int64_t{tokens} * slots_of(m), experts = experts_of(m);
  const bool few = m.way != ExpertsWay::kGrouped && m.hidden % 256 == 0;
  if (few && items <= experts * kMeanRows16) return 16;
  if (few && items <= experts * kMeanRows32) return 32;
  return items > experts * kMeanRows64 ? 128 : 64;
}

int block_count(const ExpertsMlp& m, int tokens, int rows) {
  const int64_t items = int64_t{tokens} * slots_of(m);
  const int64_t used = std::min<int64_t>(items, experts_of(m));  // experts that can have a last, partial block
  return static_cast<int>((items + used * (rows - 1)) / rows);
}

// The workspace's parts, each on a multiple of 256 bytes.
struct Parts {
  size_t at = 0;
  size_t take(size_t bytes) {
    const size_t start = at;
    at += (bytes + 255) / 256 * 256;
    return start;
  }
};

struct GroupedSpace {
  size_t rows, blocks, counts, used, q, scales, wide, h, h_scales, out, bytes;
};

GroupedSpace grouped_space(const ExpertsMlp& m, int tokens, int rows_of_block) {
  const int blocks = block_count(m, tokens, rows_of_block);
  const size_t rows = static_cast<size_t>(blocks) * rows_of_block;
  Parts parts;
  GroupedSpace s;
  s.rows = parts.take(static_cast<size_t>(tokens) * slots_of(m) * 4);
  s.blocks = parts.take(static_cast<size_t>(blocks) * 4);
  s.counts = parts.take(static_cast<size_t>(blocks) * 4);
  s.used = parts.take(3 * 4);
  s.q = parts.take(rows * m.hidden);
  s.scales = parts.take(rows * (m.hidden / 128) * 4);
  // Gates and ups in bf16, or what few rows' products share.
  s.wide = parts.take(rows_of_block < 64 ? few_rows_workspace_bytes(rows_of_block) : rows * m.inter * 4);
  s.h = parts.take(rows * m.inter);
  s.h_scales = parts.take(rows * (m.inter / 128) * 4);
  s.out = parts.take(rows * m.hidden * 2);
  s.bytes = parts.at;
  return s;
}

// What the stages of a grouped call share.
struct GroupedCall {
  const ExpertsMlp& m;
  int block_rows, rows;
  const int32_t *item_rows, *owners;
  QuantizedActivations q, h;
  void *wide, *out;
};

cudaError_t few_rows_products(const GroupedCall& c, Fp8FewRowsProduct product, cudaStream_t stream) {
  product.experts = c.m.experts, product.block_rows = c.block_rows;
  product.workspace = c.wide, product.counters = c.m.counters;
  product.shared_data = c.m.shared_gate_up.data, product.shared_scales = c.m.shared_gate_up.scales;
  product.x = c.q, product.weight = c.m.gate_up, product.output = FewRowsOutput::kGates, product.h = c.h;
  const cudaError_t error = launch_fp8_few_rows(product, stream);
  if (error != cudaSuccess) return error;
  product.shared_data = c.m.shared_down.data, product.shared_scales = c.m.shared_down.scales;
  product.m = c.rows, product.x = c.h, product.weight = c.m.down;
  if (product.claims != nullptr) ++product.claims;
  if (product.choice.tokens > 0) {
    product.output = FewRowsOutput::kSum, product.y = c.m.y, product.y_type = c.m.y_type;
    product.y_stride = c.m.y_stride, product.add = c.m.add;
  } else {
    product.output = FewRowsOutput::kRows, product.y = c.out, product.y_stride = c.m.hidden;
  }
  return launch_fp8_few_rows(product, stream);
}

cudaError_t many_rows_products(const GroupedCall& c, cudaStream_t stream) {
  Fp8GroupedProduct product;
  product.experts = c.m.experts, product.m = c.rows, product.block_rows = c.block_rows,
  product.block_experts = c.owners;
  product.x = c.q, product.weight = c.m.gate_up, product.y = c.wide, product.y_stride = 2 * c.m.inter;
  cudaError_t error = launch_fp8_grouped_product(product, stream);
  if (error != cudaSuccess) return error;
  QuantizeActivations gate;
  gate.source = QuantizeSource::kSwiGlu, gate.m = c.m.tokens * slots_of(c.m), gate.k = c.m.inter, gate.x = c.wide;
  gate.x_stride = 2 * c.m.inter, gate.rows = c.item_rows, gate.repeat = 0, gate.out = c.h;
  if ((error = launch_quantize_activations(gate, stream)) != cudaSuccess) return error;
  product.x = c.h, product.weight = c.m.down, product.y = c.out, product.y_stride = c.m.hidden;
  return launch_fp8_grouped_product(product, stream);
}

// As they lie: the products find out who chose what, and the second one adds up. Three launches.
cudaError_t run_tokens(const ExpertsMlp& m, const GroupedCall& call, cudaStream_t stream) {
  GroupedCall c = call;
  c.q.scales_stride = kFewTokensMax;
  QuantizeActivations quantize;
  quantize.m = m.tokens, quantize.k = m.hidden, quantize.x = m.x, quantize.x_type = m.x_type;
  quantize.x_stride = m.x_stride, quantize.out = c.q;
  const cudaError_t error = launch_quantize_activations(quantize, stream);
  if (error != cudaSuccess) return error;
  Fp8FewRowsProduct product;
  product.m = m.tokens, product.choice = {m.tokens, m.slots, m.ids, m.weights, has_shared(m)};
  return few_rows_products(c, product, stream);
}

cudaError_t run_grouped(const ExpertsMlp& m, char* space, size_t bytes, cudaStream_t stream) {
  const int per_block = block_rows(m, m.tokens), blocks = block_count(m, m.tokens, per_block);
  const GroupedSpace s = grouped_space(m, m.tokens, per_block);
  if (!experts_groupable(m) || bytes < s.bytes) return cudaErrorInvalidValue;
  if (has_shared(m) && !experts_take_shared(m, m.tokens)) return cudaErrorInvalidValue;
  const int rows = blocks * per_block, slots = slots_of(m), items = m.tokens * slots, experts = experts_of(m);
  auto* item_rows = reinterpret_cast<int32_t*>(space + s.rows);
  auto* owners = reinterpret_cast<int32_t*>(space + s.blocks);
  auto* counts = reinterpret_cast<int32_t*>(space + s.counts);
  auto* used = reinterpret_cast<int32_t*>(space + s.used);
  const GroupedCall call{m,
                         per_block,
                         rows,
                         item_rows,
                         owners,
                         {space + s.q, reinterpret_cast<float*>(space + s.scales), rows},
                         {space + s.h, reinterpret_cast<float*>(space + s.h_scales), rows},
                         space + s.wide,
                         space + s.out};
  if (per_block == kFewTokensMax && few_rows_take_tokens(m.tokens, m.slots, m.experts)) {
    return run_tokens(m, call, stream);
  }
  const Layout layout{items, slots, m.slots, experts, per_block, blocks, m.ids, item_rows, owners, counts, used};
  cudaError_t error =
      launch_kernel(layout_kernel, 1, kLayoutThreads, static_cast<size_t>(experts) * 4, stream, true, 1, layout);
  if (error != cudaSuccess) return error;
  QuantizeActivations quantize;
  quantize.m = items, quantize.k = m.hidden, quantize.x = m.x, quantize.x_type = m.x_type,
  quantize.x_stride = m.x_stride;
  quantize.rows = item_rows, quantize.repeat = slots, quantize.out = call.q;
  if ((error = launch_quantize_activations(quantize, stream)) != cudaSuccess) return error;
  if (per_block < 64) {
    Fp8FewRowsProduct product;
    product.m = rows, product.block_experts = owners, product.block_counts = counts, product.blocks_used = used;
    product.claims = reinterpret_cast<unsigned*>(used) + 1;
    error = few_rows_products(call, product, stream);
  } else {
    error = many_rows_products(call, stream);
  }
  if (error != cudaSuccess) return error;

  const Combine combine{m.tokens,  slots,     m.slots, m.hidden, static_cast<const __nv_bfloat16*>(call.out),
                        item_rows, m.weights, m.y,     m.y_type, m.y_stride,
                        m.add};
  const dim3 grid(static_cast<unsigned>((m.hidden + 1023) / 1024), static_cast<unsigned>(m.tokens));
  return launch_kernel(combine_kernel, grid, 128, 0, stream, true, 1, combine);
}

size_t streamed_bytes(const ExpertsMlp& m, int tokens) { return static_cast<size_t>(tokens) * m.slots * m.inter * 2; }

cudaError_t run_streamed(const ExpertsMlp& m, void* space, size_t bytes, cudaStream_t stream) {
  if (bytes < streamed_bytes(m, m.tokens)) return cudaErrorInvalidValue;
  ExpertProduct p;
  p.tokens = m.tokens, p.slots = m.slots, p.experts = m.experts, p.ids = m.ids, p.weights = m.weights;
  p.x = m.x, p.x_type = m.x_type, p.x_stride = m.x_stride, p.weight = m.gate_up;
  p.y = space, p.y_type = Scalar::kBf16, p.y_stride = m.inter;
  const cudaError_t error = launch_experts_gate_up(p, stream);
  if (error != cudaSuccess) return error;
  p.x = space, p.x_type = Scalar::kBf16, p.x_stride = m.inter, p.weight = m.down;
  p.y = m.y, p.y_type = m.y_type, p.y_stride = m.y_stride, p.add = m.add;
  return launch_experts_down(p, stream);
}

}  // namespace

bool experts_take_shared(const ExpertsMlp& m, int tokens) {
  const int64_t items = int64_t{tokens} * (m.slots + 1);
  return experts_groupable(m) && m.way != ExpertsWay::kGrouped && m.way != ExpertsWay::kStreamed &&
         tokens <= kSharedTokensMax && items <= int64_t{m.experts} * kMeanRows32;
}

size_t experts_workspace_bytes(const ExpertsMlp& m, int tokens) {
  if (compute_capability() < 90) return portable_experts_bytes(m, tokens);
  size_t bytes = streamed_bytes(m, tokens);
  if (!experts_groupable(m)) return bytes;
  // The wider blocks of more tokens can need less than the narrow ones of fewer: the largest of all.
  const auto at_most = [&](int mean, int rows) {
    const int64_t most = std::min<int64_t>(tokens, std::max<int64_t>(int64_t{experts_of(m)} * mean / slots_of(m), 1));
    bytes = std::max(bytes, grouped_space(m, static_cast<int>(most), rows).bytes);
  };
  at_most(kMeanRows16, 16);
  at_most(kMeanRows32, 32);
  at_most(kMeanRows64, 64);
  return std::max(bytes, grouped_space(m, tokens, 128).bytes);
}

cudaError_t launch_experts(const ExpertsMlp& m, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  if (compute_capability() < 90) return launch_experts_portable(m, workspace, workspace_bytes, stream);
  const bool right = m.tokens >= 1 && m.slots >= 1 && m.experts >= 1 && m.hidden % 8 == 0 && m.x_type != Scalar::kF16 &&
                     m.y_type != Scalar::kF16;
  if (!right) return cudaErrorInvalidValue;
  const bool grouped = use_groups(m, m.tokens);
  if (!grouped && has_shared(m)) return cudaErrorInvalidValue;
  if (grouped) return run_grouped(m, static_cast<char*>(workspace), workspace_bytes, stream);
  return run_streamed(m, workspace, workspace_bytes, stream);
}

}  // namespace spillway::kernels::cuda
