// One block a multiprocessor owns an even share of the outputs and streams their rows (gemv_stream.cuh). The ring fits twice in a multiprocessor, so with dependent
// launch the next product's weights are already arriving while this one ends.
#include "kernels/cuda/gemv_small_batch.h"

#include <algorithm>

#include "kernels/cuda/gemv_portable.h"
#include "kernels/cuda/gemv_stream.cuh"

namespace spillway::kernels::cuda {
namespace {

using Plan = StreamPlan;

__device__ __forceinline__ Rows block_rows(const Plan& plan, int pass) {
  const int begin = static_cast<int>(static_cast<int64_t>(blockIdx.x) * plan.units / gridDim.x);
  const int end = static_cast<int>(static_cast<int64_t>(blockIdx.x + 1) * plan.units / gridDim.x);
  const int first = begin + pass * plan.block_units;
  return {first, max(0, min(plan.block_units, end - first)), plan.p.epilogue == Epilogue::kSwiGlu ? plan.units : 0};
}

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

__device__ void finish(const Plan& plan, Rows rows, const float* sums, const float* square_sums) {
  const SmallBatchProduct& p = plan.p;
  for (int i = threadIdx.x; i < rows.count * p.m; i += kConsumers) {
    const int r = i % rows.count, token = i / rows.count;
    const auto output = [&](int row) {
      float sum = take_sum(sums, row, token, p.m);
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
      product.run(plan, ring, consumed % plan.stages, consumed / plan.stages & 1, globals, tiles, step,
                  plan.p.weight.scales);
    }
    product.leave(sums, square_sums, plan.p.m, tiles, plan.p.norm_weight != nullptr);
    ptx::named_barrier(1, kConsumers);
    finish(plan, rows, sums, square_sums);
    ptx::named_barrier(1, kConsumers);
  }
#endif
}


void size_stages(Plan* plan, int rows_wanted, int share, int rows_of_unit, int shared_bytes) {
  const int m = plan->p.m;
  const int passes = (share * rows_of_unit + rows_wanted - 1) / rows_wanted;
  plan->block_units = (share + passes - 1) / passes;
  plan->x_offset = plan->block_units * rows_of_unit * kRowStride;
  plan->stage_bytes = plan->x_offset + m * plan->x_stride;
  plan->stages = std::min((shared_bytes - tail_bytes(m) - kBarrierBytes) / plan->stage_bytes, kStagesMax);
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
  const size_t shared = static_cast<size_t>(plan.stages) * plan.stage_bytes + tail_bytes(p.m);
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
