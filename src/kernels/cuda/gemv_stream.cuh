// The streaming core of the products of few rows: a ring of shared memory that tensor copies fill with 1,024 bytes of
// each of up to 32 weight rows, and the part that each of eight warps computes of a stage: its slice of 128 bytes along
// K by all rows, the weight as the tensor cores' 16-row operand, the tokens as columns of 8.
//
// The tokens' values are bf16: kept in shared memory for the whole launch where they fit (float32 inputs and fused
// norms must), else beside the weights in each stage. Every order of sums is the same in both.
//
// A stage: 8 slabs (slices) of `pitch` rows of 128 bytes in the 128-byte swizzle, twice `pitch` where each unit has two
// rows; then, unless they are kept, the tokens as boxes of at most 1,024 bytes a token.
#pragma once

#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_maps.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/gemv_widen.cuh"

namespace spillway::kernels::cuda {

constexpr int kSlices = 8;
constexpr int kRowBytes = kSlices * 128;  // of one weight row in a stage
constexpr int kRowsMax = 32;              // weight rows of a stage
constexpr int kConsumers = 8 * 32;
constexpr int kThreads = kConsumers + 64;  // and a warp that loads, one that finishes passes
constexpr int kStagesMax = 12;
// Twice in one multiprocessor; where that makes too few stages, the whole of it.
constexpr int kSharedBytes[2] = {112 * 1024, 222 * 1024};
constexpr int kBarrierBytes = 3072;  // and what else lies beside
// The slots of scales (gemv_scales.cuh), where tokens are kept as bytes: there little else lies beside.
constexpr int kScaleDepth = 4, kScaleSlotBytes = 64, kByteBarrierBytes = 704;
constexpr int scale_groups(WeightFormat format) { return format == WeightFormat::kInt4 ? 2 : 1; }
constexpr int scale_slots_bytes(WeightFormat format) {
  return kSlices * kScaleDepth * scale_groups(format) * kScaleSlotBytes;
}
constexpr int kKeptBytesMax = 64 * 1024;

// Where the tokens' values come from.
enum class InputKind {
  kStage,      // bf16, beside the weights of a stage
  kKept,       // bf16, kept
  kKeptHalf,   // float16, kept and scaled (gemv_keep.cuh)
  kKeptBytes,  // integers of 16 bits as two columns of bytes, kept (gemv_bytes.cuh)
};

struct StreamPlan {
  SmallBatchProduct p;
  int units;              // outputs to share out: n, or n / 2 pairs
  int unit_step = 1;      // that a block's share and a pass are multiples of
  int block_steps, more;  // each block's share in such steps; the first `more` blocks have one more
  int block_units;        // of one pass over K
  int pitch;              // block_units up to a multiple of 8: rows of a slab for the first (or only) row of each unit
  int slab_bytes;         // of one slice
  bool apart;    // a unit's two rows are copied apart (bf16, where that is 2% faster; the others gain 6% by one copy)
  int box_rows;  // that a slice's copies bring
  int stages;
  int stage_bytes;
  bool kept;          // the tokens' values
  int kept_elements;  // of a token: whole steps
  int column_bytes;   // of a column of bytes; 0: the tokens are not kept so
  int x_stride;       // bytes from token to token: kept, or in a box
  int x_boxes;        // of a stage
  int x_stage;        // bytes of a stage; 0 if kept
  int64_t row_bytes;
  int k_steps;
};

template <WeightFormat kFormat>
constexpr int kStepElements = Format<kFormat>::kElements16*(kRowBytes / 16);

// Which weight rows a block works on: units [first, first + count), each one row, or two with SwiGlu (then `half` rows
// apart in the weight and `pitch` rows apart in a stage).
struct Rows {
  int first, count, half, pitch;
  __device__ int local() const { return half > 0 ? pitch + count : count; }
  __device__ int global(int r) const {
    const bool second = half > 0 && r >= pitch;
    return (second ? half : 0) + first + min(second ? r - pitch : r, count - 1);
  }
};

struct Ring {
  uint64_t* full;
  uint64_t* empty;
  char* data;
};

// One thread: the boxes of a stage's weights, one a slice, or one for each row of a unit; first_row counts from the
// first row of the map, whose outer dimension are the one or two rows of a unit.
__device__ __forceinline__ void load_stage_weights(const StreamPlan& plan, const CUtensorMap* map, char* stage,
                                                   int first_row, int step, uint64_t* full) {
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    char* to = stage + slice * plan.slab_bytes;
    const int column = (step * kRowBytes + slice * 128) / 2;
    ptx::tensor_load_3d(to, map, column, first_row, 0, full);
    if (plan.apart) ptx::tensor_load_3d(to + plan.pitch * 128, map, column, first_row, 1, full);
  }
}
__device__ __forceinline__ void load_stage_x(const StreamPlan& plan, const CUtensorMap* map, char* stage,
                                             int first_token, int step, uint64_t* full) {
  char* to = stage + kSlices * plan.slab_bytes;
  for (int box = 0; box < plan.x_boxes; ++box) {
    ptx::tensor_load(to + box * plan.p.m * plan.x_stride, map, (step * plan.x_boxes + box) * plan.x_stride / 4,
                     first_token, full);
  }
}
__device__ __forceinline__ uint32_t stage_transfer_bytes(const StreamPlan& plan) {
  return static_cast<uint32_t>(kRowBytes * plan.box_rows + plan.x_stage);
}

// Row g of a fragment is row stage_row(g) of eight: so that rows read together differ in the half of their 128 bytes
// that the swizzle puts a segment in.
__device__ __forceinline__ int stage_row(int g) { return g >> 1 | (g & 1) << 2; }

// 16 bytes of each of a thread's rows. weights: those of the first.
template <int kTiles>
__device__ __forceinline__ void load_weight_part(const char* weights, uint4 (&q)[kTiles][2]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) q[i][h] = *reinterpret_cast<const uint4*>(weights + (16 * i + 8 * h) * 128);
  }
}

// The stored scales of a warp's rows in one stage, [group][tile][row of two], loaded a stage ahead and not looked at
// before they are used.
template <WeightFormat kFormat>
struct StageScales {
  using Stored = std::conditional_t<kFormat == WeightFormat::kF8Block, float, __half>;
  Stored stored[2][2][2];

  // rows: of the weight; step counts from its first column.
  __device__ __forceinline__ void load(const Weight& weight, const void* scales, const int (&rows)[2][2], int step) {
    using F = Format<kFormat>;
    if constexpr (F::kGroupParts > 0) {
      constexpr int kPartElements = 4 * F::kElements16;
      const int k0 = step * kStepElements<kFormat> + static_cast<int>(threadIdx.x) / 32 * 2 * kPartElements;
      const int groups = (weight.k + 127) / 128;
#pragma unroll
      for (int part = 0; part < 2; part += F::kGroupParts) {
        const int group = min((k0 + part * kPartElements) / 128, groups - 1);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = rows[i / 2][i % 2];
          const int64_t at = kFormat == WeightFormat::kF8Block
                                 ? static_cast<int64_t>(row / weight.scale_rows) * groups + group
                                 : static_cast<int64_t>(group) * weight.n + row;
          stored[part][i / 2][i % 2] = static_cast<const Stored*>(scales)[at];
        }
      }
    }
  }
  __device__ __forceinline__ float value(int part, int tile, int half) const {
    if constexpr (kFormat == WeightFormat::kF8Block) {
      return stored[part][tile][half];
    } else {
      return __half2float(stored[part][tile][half]);
    }
  }
};

// The rows of the weight that a thread's fragments hold.
__device__ __forceinline__ void fragment_rows(const Rows& rows, int (&globals)[2][2]) {
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) globals[i / 2][i % 2] = rows.global(i / 2 * 16 + stage_row(g) + i % 2 * 8);
}

// The part of one warp in one stage: its 128 bytes of up to two tiles of 16 rows by all tokens.
template <WeightFormat kFormat, int kColumns, InputKind kKind>
struct WarpProduct {
  using F = Format<kFormat>;
  static constexpr int kPartElements = 4 * F::kElements16;
  // Few tokens whose values are kept: as float16, scaled by a power of two for each token, where the format is cheaper
  // to widen so.
  static constexpr bool kHalf = kKind == InputKind::kKeptHalf;
  static constexpr bool kKept = kKind != InputKind::kStage;
  float sums[2][kColumns][4] = {};

  // kept: the values of the step's first element, where they are kept. factor multiplies all products. One or two tiles
  // are code of their own: a branch at each product would keep the compiler from overlapping them.
  __device__ __forceinline__ void run(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity, int tiles,
                                      const char* kept, const StageScales<kFormat>& scales, float factor = 1.0f) {
    if (tiles > 1) {
      run_tiles<2>(plan, ring, stage, parity, kept, scales, factor);
    } else {
      run_tiles<1>(plan, ring, stage, parity, kept, scales, factor);
    }
  }

  template <int kTiles>
  __device__ __forceinline__ void run_tiles(const StreamPlan& plan, const Ring& ring, int stage, uint32_t parity,
                                            const char* kept, const StageScales<kFormat>& scales, float factor) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
    ptx::barrier_wait(&ring.full[stage], parity);
    const char* base = ring.data + stage * plan.stage_bytes;
    const char* weights = base + slice * plan.slab_bytes + stage_row(g) * 128;
    const char* x = kKept ? kept : base + kSlices * plan.slab_bytes;
    float part_sums[kTiles][kColumns][4] = {};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const int segment = ((part * 4 + t) ^ stage_row(g)) * 16;
      uint4 q[kTiles][2];
      load_weight_part(weights + segment, q);
      multiply(plan, x, slice * 2 * kPartElements + part * kPartElements, q, part_sums);
      if constexpr (F::kGroupParts > 0) {
        if ((part + 1) % F::kGroupParts == 0) {
          constexpr int kParts = F::kGroupParts;
          promote(scales, part / kParts * kParts, factor, part_sums);
        }
      }
    }
    if constexpr (F::kGroupParts == 0) promote(scales, 0, factor, part_sums);
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(&ring.empty[stage]);
  }

  static __device__ __forceinline__ Pair fragment(uint4 q, int u, int i) {
    if constexpr (kHalf) {
      return F::half_fragment(q, u, i);
    } else {
      return F::fragment(q, u, i);
    }
  }
  // Halves lie in the order of k.
  static __device__ __forceinline__ Pair inputs(const uint32_t (&x)[4], int i) {
    if constexpr (kHalf) {
      return {x[2 * i], x[2 * i + 1]};
    } else {
      return F::inputs(x, i);
    }
  }

  // k0: from the step's first element.
  template <int kTiles>
  __device__ __forceinline__ void multiply(const StreamPlan& plan, const char* x, int k0, const uint4 (&q)[kTiles][2],
                                           float (&part_sums)[kTiles][kColumns][4]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int u = 0; u < F::kElements16 / 8; ++u) {
      const int at = (k0 + F::unit_k(t, u)) * 2;
      const char* x_at = kKept ? x + at : x + (at >> 10) * (plan.p.m << 10) + (at & 1023);
      uint32_t words[kColumns][4];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const uint4 v = *reinterpret_cast<const uint4*>(x_at + min(8 * c + g, plan.p.m - 1) * plan.x_stride);
        words[c][0] = v.x, words[c][1] = v.y, words[c][2] = v.z, words[c][3] = v.w;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const Pair low = fragment(q[i][0], u, j), high = fragment(q[i][1], u, j);
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const Pair b = inputs(words[c], j);
            ptx::mma_16<kHalf>(part_sums[i][c], low.first, high.first, low.second, high.second, b.first, b.second);
          }
        }
      }
    }
  }

  template <int kTiles>
  __device__ __forceinline__ void promote(const StageScales<kFormat>& scales, int part, float factor,
                                          float (&part_sums)[kTiles][kColumns][4]) {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float scale = factor;
        if constexpr (F::kGroupParts > 0) scale *= scales.value(part, i, half);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            sums[i][c][e] += scale * part_sums[i][c][e];
            part_sums[i][c][e] = 0;
          }
        }
      }
    }
  }

  // To shared memory as [slice][row][token].
  __device__ void leave(float* to, int m, int tiles) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, slice = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (i >= tiles) break;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = i * 16 + stage_row(g) + 8 * (e / 2), token = 8 * c + 2 * t + e % 2;
          if (token < m) to[(slice * kRowsMax + row) * m + token] = sums[i][c][e];
          sums[i][c][e] = 0;
        }
      }
    }
  }
};

// Sum over the slices of K of one row and token.
__device__ __forceinline__ float take_sum(const float* sums, int row, int token, int m) {
  float sum = 0;
#pragma unroll
  for (int s = 0; s < kSlices; ++s) sum += sums[(s * kRowsMax + row) * m + token];
  return sum;
}

constexpr int sums_bytes(int m) { return kSlices * kRowsMax * m * 4; }

// The sums of a pass lie in one of two places, so that the consumers go on while the finishing warp adds up.
struct SumPlaces {
  uint64_t filled[2], freed[2];

  __device__ __forceinline__ void init() {
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(&filled[i], kConsumers);
      ptx::barrier_init(&freed[i], 32);
    }
  }
  // All threads of a warp each.
  __device__ __forceinline__ void wait_free(int pass) {
    if (pass >= 2) ptx::barrier_wait(&freed[pass & 1], static_cast<uint32_t>(pass / 2 + 1) & 1);
  }
  __device__ __forceinline__ void wait_filled(int pass) {
    ptx::barrier_wait(&filled[pass & 1], static_cast<uint32_t>(pass / 2) & 1);
  }
  // Every thread arrives for its own accesses: a pass is long beside 32 arrivals, and racecheck follows it.
  __device__ __forceinline__ void fill(int pass) { ptx::barrier_arrive(&filled[pass & 1]); }
  __device__ __forceinline__ void free(int pass) { ptx::barrier_arrive(&freed[pass & 1]); }
};

// Behind the last stage: the kept tokens, then the sums. A tile's rows past those loaded are read as well, whatever
// lies there, and left out; that is never the sums, which others write meanwhile.
constexpr int sums_offset(int kept_bytes) {
  constexpr int kPastRows = 31 * 128;
  return kept_bytes > kPastRows ? kept_bytes : kPastRows;
}
constexpr int tail_bytes(int m, int kept_bytes) { return sums_offset(kept_bytes) + 2 * sums_bytes(m); }

struct StreamShape {
  int rows_of_unit;
  int step_elements;
  int share;   // units of a block
  int tokens;  // to keep, if they are kept
  bool bytes;  // kept as bytes
};

// Fills what follows from p, units and block_units. shared_bytes holds the ring and what lies beside it.
inline void size_stream(StreamPlan* plan, const StreamShape& shape, bool keep, int shared_bytes) {
  const SmallBatchProduct& p = plan->p;
  const int step_elements = shape.step_elements, tokens = shape.tokens;
  plan->row_bytes = weight_row_bytes(p.weight.format, p.weight.k);
  plan->k_steps = static_cast<int>((plan->row_bytes + kRowBytes - 1) / kRowBytes);
  plan->pitch = (plan->block_units + 7) / 8 * 8;
  plan->slab_bytes = plan->pitch * shape.rows_of_unit * 128;
  plan->apart = shape.rows_of_unit == 2 && p.weight.format == WeightFormat::kBf16;
  plan->box_rows = plan->apart ? 2 * plan->block_units : shape.rows_of_unit == 2 ? 2 * plan->pitch : plan->block_units;
  // Kept rows are 64 or 16 bytes longer: neighbouring tokens' reads fall on different banks.
  const bool bytes = p.weight.format == WeightFormat::kF8Block || p.weight.format == WeightFormat::kInt8;
  int kept_stride = plan->k_steps * step_elements * 2 + (bytes ? 16 : 64);
  plan->kept = keep;
  plan->kept_elements = plan->k_steps * step_elements;
  plan->column_bytes = keep && shape.bytes ? plan->kept_elements + (bytes ? 64 : 16) : 0;
  if (plan->column_bytes > 0) kept_stride = 2 * plan->column_bytes + plan->kept_elements / 128 * 8;
  const int x_row = step_elements * 2;  // of one stage
  plan->x_stride = plan->kept ? kept_stride : x_row < 1024 ? x_row : 1024;
  plan->x_boxes = plan->kept ? 0 : x_row / plan->x_stride;
  plan->x_stage = plan->kept ? 0 : p.m * x_row;
  plan->stage_bytes = (kSlices * plan->slab_bytes + plan->x_stage + 1023) / 1024 * 1024;
  const int kept_bytes = keep ? kept_stride * tokens : 0;
  const int beside = plan->column_bytes > 0 ? scale_slots_bytes(p.weight.format) + kByteBarrierBytes : kBarrierBytes;
  const int ring_bytes = shared_bytes - 1024 - tail_bytes(p.m, kept_bytes) - beside;
  plan->stages = ring_bytes / plan->stage_bytes < kStagesMax ? ring_bytes / plan->stage_bytes : kStagesMax;
}

// Chooses how the tokens lie and how many rows a stage has: the first way with three stages. Answers whether there is
// one.
inline bool plan_stream(StreamPlan* plan, const StreamShape& shape, bool must_keep) {
  const SmallBatchProduct& p = plan->p;
  for (const int shared : kSharedBytes) {
    for (int rows = kRowsMax; rows >= 16; rows -= 8) {
      const int passes = (shape.share * shape.rows_of_unit + rows - 1) / rows;
      const int fewest = (shape.share * shape.rows_of_unit + kRowsMax - 1) / kRowsMax;
      // Rather the whole multiprocessor than narrow stages or twice the passes; but room beside counts for one token,
      // and for two where passes are short.
      const bool alone = p.m > 2 || (p.m == 2 && p.weight.k > 8192);
      if (shared == kSharedBytes[0] && (rows == 16 || (alone && passes * 3 > fewest * 4))) continue;
      plan->block_units = (shape.share + passes - 1) / passes;
      plan->block_units += plan->block_units % plan->unit_step;
      if ((plan->block_units + 7) / 8 * 8 * shape.rows_of_unit > kRowsMax) continue;
      for (const bool keep : {true, false}) {
        if (!keep && must_keep) continue;
        size_stream(plan, shape, keep, shared);
        if (keep && static_cast<int64_t>(plan->x_stride) * shape.tokens > kKeptBytesMax) continue;
        if (plan->stages >= 3) return true;
      }
    }
  }
  return false;
}
__host__ __device__ __forceinline__ int kept_bytes(const StreamPlan& plan, int tokens) {
  return plan.kept ? plan.x_stride * tokens : 0;
}
inline size_t stream_shared_bytes(const StreamPlan& plan, int tokens) {
  return 1024 + static_cast<size_t>(plan.stages) * plan.stage_bytes +
         static_cast<size_t>(tail_bytes(plan.p.m, kept_bytes(plan, tokens))) +
         static_cast<size_t>(plan.column_bytes > 0 ? scale_slots_bytes(plan.p.weight.format) : 0);
}
__device__ __forceinline__ char* ring_base(char* shared) {
  return shared + ((1024 - (ptx::shared_address(shared) & 1023)) & 1023);
}

// rows: of the weight, all experts together; half: rows from a unit's first row to its second, 0 where it has one.
inline bool make_stream_maps(const StreamPlan& plan, int64_t rows, int half, int64_t tokens, CUtensorMap* weight,
                             CUtensorMap* x) {
  const SmallBatchProduct& p = plan.p;
  RowsMap w{p.weight.data};  // bytes, taken two at a time
  w.columns = plan.row_bytes / 2;
  w.row_stride = plan.row_bytes;
  w.rows = rows - half;
  w.outer = half > 0 ? 2 : 1;
  w.outer_stride = half > 0 ? half * plan.row_bytes : plan.row_bytes;
  w.box_outer = plan.apart ? 1 : static_cast<int>(w.outer);
  w.box_rows = half > 0 && !plan.apart ? plan.pitch : plan.block_units;
  return make_rows_map(weight, w) && (plan.kept || make_map(x, MapType::kF32, p.x, tokens, p.weight.k / 2,
                                                            p.x_stride * 2, p.m, plan.x_stride / 4, false));
}

}  // namespace spillway::kernels::cuda
