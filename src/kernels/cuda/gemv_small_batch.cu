// One block a multiprocessor owns an even share of the outputs and streams their rows through a ring of shared memory
// with bulk copies; eight warps multiply (4 slices of 128 bytes along K by 2 groups of 16 rows) on the tensor cores, the
// weight as the 16-row operand, the tokens as columns of 8. The ring fits twice in a multiprocessor, so with dependent
// launch the next product's weights are already arriving while this one ends.
#include "kernels/cuda/gemv_small_batch.h"

#include <algorithm>

#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_widen.cuh"
#include "kernels/cuda/gemm_launch.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kSlices = 4;
constexpr int kRowBytes = kSlices * 128;       // of one weight row in a stage
constexpr int kRowStride = kRowBytes + 64;     // 64 more: two rows' quarters fall on different banks
constexpr int kRowsMax = 64;                   // weight rows of a stage
constexpr int kConsumers = 8 * 32;
constexpr int kThreads = kConsumers + 32;
constexpr int kStagesMax = 24;
// Twice in one multiprocessor; where that makes too few stages, the whole of it.
constexpr int kSharedBytes[2] = {112 * 1024, 222 * 1024};
constexpr int kBarrierBytes = 2048;

struct Plan {
  SmallBatchProduct p;
  int units;        // outputs to share out: n, or n / 2 pairs
  int block_units;  // of one pass over K
  int stages;
  int stage_bytes;
  int x_offset;  // of the tokens in a stage, behind the weights
  int x_stride;  // bytes in shared memory
  int x_bytes;   // of one element
  int64_t row_bytes;
  int k_steps;
};

template <WeightFormat kFormat>
constexpr int kStepElements = Format<kFormat>::kElements16 * (kRowBytes / 16);

// Which weight rows a block works on: units [first, first + count), each one row, or two with SwiGLU.
struct Rows {
  int first, count, half;
  __device__ int local() const { return half > 0 ? 2 * count : count; }
  __device__ int global(int r) const { return half > 0 && r >= count ? half + first + r - count : first + r; }
};

__device__ __forceinline__ Rows block_rows(const Plan& plan, int pass) {
  const int begin = static_cast<int>(static_cast<int64_t>(blockIdx.x) * plan.units / gridDim.x);
  const int end = static_cast<int>(static_cast<int64_t>(blockIdx.x + 1) * plan.units / gridDim.x);
  const int first = begin + pass * plan.block_units;
  return {first, max(0, min(plan.block_units, end - first)), plan.p.epilogue == Epilogue::kSwiGlu ? plan.units : 0};
}

struct Ring {
  uint64_t* full;
  uint64_t* empty;
  char* data;
};

template <int kElements>
__device__ void produce(const Plan& plan, const Ring& ring) {
  const int lane = threadIdx.x % 32;
  const SmallBatchProduct& p = plan.p;
  const auto* weight = static_cast<const char*>(p.weight.data);
  const auto load_weights = [&](Rows rows, int step, int stage) {
    const int64_t offset = static_cast<int64_t>(step) * kRowBytes;
    const auto bytes = static_cast<uint32_t>(min(static_cast<int64_t>(kRowBytes), plan.row_bytes - offset));
    const int k_left = min(kElements, p.weight.k - step * kElements);
    if (lane == 0) {
      ptx::barrier_expect(&ring.full[stage],
                          bytes * rows.local() + static_cast<uint32_t>(k_left * plan.x_bytes * p.m));
    }
    __syncwarp();
    char* to = ring.data + stage * plan.stage_bytes;
    for (int r = lane; r < rows.local(); r += 32) {
      ptx::bulk_load(to + r * kRowStride, weight + rows.global(r) * plan.row_bytes + offset, bytes, &ring.full[stage]);
    }
  };
  const auto load_x = [&](int step, int stage) {
    const int k_left = min(kElements, p.weight.k - step * kElements);
    char* to = ring.data + stage * plan.stage_bytes + plan.x_offset;
    for (int i = lane; i < p.m; i += 32) {
      const char* from = static_cast<const char*>(p.x) +
                         (i * p.x_stride + static_cast<int64_t>(step) * kElements) * plan.x_bytes;
      ptx::bulk_load(to + i * plan.x_stride, from, static_cast<uint32_t>(k_left * plan.x_bytes), &ring.full[stage]);
    }
  };
  int issued = 0;
  bool waited = false;
  for (int pass = 0;; ++pass) {
    const Rows rows = block_rows(plan, pass);
    if (rows.count == 0) break;
    for (int step = 0; step < plan.k_steps; ++step, ++issued) {
      const int stage = issued % plan.stages;
      if (issued == plan.stages) {
        ptx::wait_for_previous();
        waited = true;
        for (int s = 0; s < plan.stages; ++s) load_x(s % plan.k_steps, s);
      }
      if (issued >= plan.stages) ptx::barrier_wait(&ring.empty[stage], (issued / plan.stages - 1) & 1);
      __syncwarp();
      load_weights(rows, step, stage);
      if (waited) load_x(step, stage);
    }
  }
  if (!waited) {
    ptx::wait_for_previous();
    for (int s = 0; s < issued; ++s) load_x(s % plan.k_steps, s);
  }
}

// 8 elements of a token as 4 words of bf16, with the norm's weight if any; adds their squares to sum.
__device__ __forceinline__ void load_x8(const Plan& plan, const char* x_row, int k_local, int k, bool valid,
                                        uint32_t (&x)[4], float& sum) {
  x[0] = x[1] = x[2] = x[3] = 0;
  if (!valid) return;
  const SmallBatchProduct& p = plan.p;
  if (p.x_type == Scalar::kBf16 && p.norm_weight == nullptr) {
    const uint4 q = *reinterpret_cast<const uint4*>(x_row + k_local * 2);
    x[0] = q.x, x[1] = q.y, x[2] = q.z, x[3] = q.w;
    return;
  }
  float v[8], w[8];
  load_8(x_row, k_local, p.x_type, v);
  if (p.norm_weight != nullptr) {
    load_8(p.norm_weight, k, p.norm_type, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum += v[i] * v[i];
      v[i] *= w[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = pack_bf16(v[2 * i], v[2 * i + 1]);
}

template <WeightFormat kFormat>
__device__ __forceinline__ float load_scale(const Weight& weight, int row, int group, int groups) {
  if constexpr (kFormat == WeightFormat::kF8Block) {
    return static_cast<const float*>(weight.scales)[static_cast<int64_t>(row / weight.scale_rows) * groups + group];
  } else {
    return __half2float(static_cast<const __half*>(weight.scales)[static_cast<int64_t>(group) * weight.n + row]);
  }
}

// The part of one warp in one stage: its 128 bytes of up to two tiles of 16 rows by all tokens.
template <WeightFormat kFormat, int kColumns>
struct WarpProduct {
  using F = Format<kFormat>;
  float sums[2][kColumns][4] = {};
  float squares[kColumns] = {};

  __device__ void run(const Plan& plan, const Ring& ring, int stage, uint32_t parity, const int (&rows)[2][2],
                      int tiles, int step) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int slice = threadIdx.x / 32 % kSlices, first_tile = threadIdx.x / 32 / kSlices;
    constexpr int kPartElements = 4 * F::kElements16;
    const int k0 = step * kStepElements<kFormat> + slice * 2 * kPartElements;
    const int groups = (plan.p.weight.k + 127) / 128;
    float scales[2][2][2];
    if constexpr (F::kGroupParts > 0) {
#pragma unroll
      for (int part = 0; part < 2; part += F::kGroupParts) {
        const int group = min((k0 + part * kPartElements) / 128, groups - 1);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          scales[part][i][0] = load_scale<kFormat>(plan.p.weight, rows[i][0], group, groups);
          scales[part][i][1] = load_scale<kFormat>(plan.p.weight, rows[i][1], group, groups);
        }
      }
    }
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* weights = ring.data + stage * plan.stage_bytes;
    const char* x = weights + plan.x_offset;
    float part_sums[2][kColumns][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int offset = slice * 128 + part * 64 + t * 16;
      const bool in_row = step * static_cast<int64_t>(kRowBytes) + offset < plan.row_bytes;
      uint4 q[2][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          q[i][h] = make_uint4(0, 0, 0, 0);
          const int row = (first_tile + 2 * i) * 16 + g + 8 * h;
          if (in_row && first_tile + 2 * i < tiles) {
            q[i][h] = *reinterpret_cast<const uint4*>(weights + row * kRowStride + offset);
          }
        }
      }
      multiply(plan, x, k0 + part * kPartElements, step, q, tiles > first_tile + 2, part_sums);
      if constexpr (F::kGroupParts > 0) {
        if ((part + 1) % F::kGroupParts == 0) promote(scales[part / F::kGroupParts * F::kGroupParts], part_sums);
      }
    }
    if constexpr (F::kGroupParts == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
#pragma unroll
          for (int e = 0; e < 4; ++e) sums[i][c][e] += part_sums[i][c][e];
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
  }

  __device__ __forceinline__ void multiply(const Plan& plan, const char* x, int k0, int step, const uint4 (&q)[2][2],
                                           bool second_tile, float (&part_sums)[2][kColumns][4]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int u = 0; u < F::kElements16 / 8; ++u) {
      const int k = k0 + F::unit_k(t, u);
      uint32_t words[kColumns][4];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int token = min(8 * c + g, plan.p.m - 1);
        load_x8(plan, x + token * plan.x_stride, k - step * kStepElements<kFormat>, k, k < plan.p.weight.k, words[c],
                squares[c]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        if (i == 1 && !second_tile) break;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const Pair low = F::fragment(q[i][0], u, j), high = F::fragment(q[i][1], u, j);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const Pair b = F::inputs(words[c], j);
            ptx::mma_bf16(part_sums[i][c], low.first, high.first, low.second, high.second, b.first, b.second);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void promote(const float (&scales)[2][2], float (&part_sums)[2][kColumns][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums[i][c][e] += scales[i][e / 2] * part_sums[i][c][e];
          part_sums[i][c][e] = 0;
        }
      }
    }
  }

  // To shared memory as [slice][row][token], and the squares as [slice][token].
  __device__ void leave(float* to, float* square_sums, int m, int tiles, bool norm) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const int slice = threadIdx.x / 32 % kSlices, first_tile = threadIdx.x / 32 / kSlices;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (first_tile + 2 * i >= tiles) break;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = (first_tile + 2 * i) * 16 + g + 8 * (e / 2), token = 8 * c + 2 * t + e % 2;
          if (token < m) to[(slice * kRowsMax + row) * m + token] = sums[i][c][e];
          sums[i][c][e] = 0;
        }
      }
    }
    if (!norm || first_tile != 0) return;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      squares[c] += __shfl_xor_sync(~0u, squares[c], 1);
      squares[c] += __shfl_xor_sync(~0u, squares[c], 2);
      if (t == 0 && 8 * c + g < m) square_sums[slice * kSmallBatchRowsMax + 8 * c + g] = squares[c];
      squares[c] = 0;
    }
  }
};

__device__ void finish(const Plan& plan, Rows rows, const float* sums, const float* square_sums) {
  const SmallBatchProduct& p = plan.p;
  for (int i = threadIdx.x; i < rows.count * p.m; i += kConsumers) {
    const int r = i % rows.count, token = i / rows.count;
    const auto output = [&](int row) {
      float sum = 0;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) sum += sums[(s * kRowsMax + row) * p.m + token];
      if (p.norm_weight != nullptr) {
        float squares = 0;
#pragma unroll
        for (int s = 0; s < kSlices; ++s) squares += square_sums[s * kSmallBatchRowsMax + token];
        sum *= rsqrtf(squares / static_cast<float>(p.weight.k) + p.norm_eps);
      }
      return p.bias != nullptr ? sum + p.bias[rows.global(row)] : sum;
    };
    float value = output(r);
    if (p.epilogue == Epilogue::kSwiGlu) value = silu(value) * output(r + rows.count);
    store_one(p.y, p.y_type, token * p.y_stride + rows.first + r, value, p.epilogue == Epilogue::kAdd);
  }
}

template <WeightFormat kFormat, int kColumns>
__global__ void __launch_bounds__(kThreads, kColumns == 1 ? 2 : 1) small_batch_kernel(const __grid_constant__ Plan plan) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) char shared[];
  __shared__ uint64_t full[kStagesMax], empty[kStagesMax];
  __shared__ float square_sums[kSlices * kSmallBatchRowsMax];
  const Ring ring{full, empty, shared};
  auto* sums = reinterpret_cast<float*>(shared + plan.stages * plan.stage_bytes);
  if (threadIdx.x == 0) {
    for (int s = 0; s < plan.stages; ++s) {
      ptx::barrier_init(&full[s], 1);
      ptx::barrier_init(&empty[s], kConsumers / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  ptx::launch_dependents();
  if (threadIdx.x >= kConsumers) {
    produce<kStepElements<kFormat>>(plan, ring);
    return;
  }
  ptx::wait_for_previous();
  WarpProduct<kFormat, kColumns> product;
  const int g = threadIdx.x % 32 / 4, first_tile = threadIdx.x / 32 / kSlices;
  int consumed = 0;
  for (int pass = 0;; ++pass) {
    const Rows rows = block_rows(plan, pass);
    if (rows.count == 0) break;
    const int local = rows.local(), tiles = (local + 15) / 16;
    int globals[2][2];
    for (int i = 0; i < 2; ++i) {
      for (int h = 0; h < 2; ++h) globals[i][h] = rows.global(min((first_tile + 2 * i) * 16 + g + 8 * h, local - 1));
    }
    for (int step = 0; step < plan.k_steps; ++step, ++consumed) {
      product.run(plan, ring, consumed % plan.stages, consumed / plan.stages & 1, globals, tiles, step);
    }
    product.leave(sums, square_sums, plan.p.m, tiles, plan.p.norm_weight != nullptr);
    ptx::named_barrier(1, kConsumers);
    finish(plan, rows, sums, square_sums);
    ptx::named_barrier(1, kConsumers);
  }
#endif
}

constexpr int sums_bytes(int m) { return kSlices * kRowsMax * m * 4; }

void size_stages(Plan* plan, int rows_wanted, int share, int rows_of_unit, int shared_bytes) {
  const int m = plan->p.m;
  const int passes = (share * rows_of_unit + rows_wanted - 1) / rows_wanted;
  plan->block_units = (share + passes - 1) / passes;
  plan->x_offset = plan->block_units * rows_of_unit * kRowStride;
  plan->stage_bytes = plan->x_offset + m * plan->x_stride;
  plan->stages = std::min((shared_bytes - sums_bytes(m) - kBarrierBytes) / plan->stage_bytes, kStagesMax);
}

Plan make_plan(const SmallBatchProduct& p, int step_elements, int processors, int* grid) {
  Plan plan{};
  plan.p = p;
  const int rows_of_unit = p.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  plan.units = p.weight.n / rows_of_unit;
  *grid = std::min(plan.units, processors);
  const int share = (plan.units + *grid - 1) / *grid;
  plan.x_bytes = scalar_bytes(p.x_type);
  const bool bytes = p.weight.format == WeightFormat::kF8Block || p.weight.format == WeightFormat::kInt8;
  plan.x_stride = step_elements * plan.x_bytes + (bytes ? 16 : 64);
  plan.row_bytes = weight_data_bytes(p.weight.format, 1, p.weight.k);
  plan.k_steps = static_cast<int>((plan.row_bytes + kRowBytes - 1) / kRowBytes);
  const bool small = share * rows_of_unit <= kRowsMax || p.m > 8;
  for (const int shared : kSharedBytes) {
    for (int rows = small ? kRowsMax : kRowsMax / 2; rows >= 16; rows /= 2) {
      size_stages(&plan, rows, share, rows_of_unit, shared);
      if (plan.stages >= 3) return plan;
    }
  }
  return plan;
}

template <WeightFormat kFormat, int kColumns>
cudaError_t launch(const SmallBatchProduct& p, cudaStream_t stream) {
  int grid = 0;
  const Plan plan = make_plan(p, kStepElements<kFormat>, processor_count(), &grid);
  if (plan.stages < 2) return cudaErrorInvalidValue;
  const auto kernel = small_batch_kernel<kFormat, kColumns>;
  const size_t shared = static_cast<size_t>(plan.stages) * plan.stage_bytes + sums_bytes(p.m);
  const cudaError_t error = allow_shared(kernel, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, grid, kThreads, shared, stream, p.overlap, 1, plan);
}

template <WeightFormat kFormat>
cudaError_t launch_columns(const SmallBatchProduct& p, cudaStream_t stream) {
  if (p.m <= 8) return launch<kFormat, 1>(p, stream);
  if (p.m <= 16) return launch<kFormat, 2>(p, stream);
  return launch<kFormat, 4>(p, stream);
}

}  // namespace

cudaError_t launch_small_batch(const SmallBatchProduct& p, cudaStream_t stream) {
  if (!small_batch_valid(p)) return cudaErrorInvalidValue;
  if (compute_capability() < 90) return launch_small_batch_portable(p, stream);
  switch (p.weight.format) {
    case WeightFormat::kBf16:
      return launch_columns<WeightFormat::kBf16>(p, stream);
    case WeightFormat::kF8Block:
      return launch_columns<WeightFormat::kF8Block>(p, stream);
    case WeightFormat::kInt8:
      return launch_columns<WeightFormat::kInt8>(p, stream);
    case WeightFormat::kInt4:
      return launch_columns<WeightFormat::kInt4>(p, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace spillway::kernels::cuda
