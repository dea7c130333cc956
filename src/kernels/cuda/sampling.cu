// A cluster of blocks draws one row. Each block scans its share of the row for the largest logit, then either for the
// largest logit plus noise, or how many tokens lie how far below the largest; from that follows a width that surely
// holds the candidates, which all blocks hand to the first one, and that block filters and draws. Where they are too
// many for its memory it reads the row itself.
#include <cooperative_groups.h>

#include <cmath>

#include "base/draw_noise.h"
#include "kernels/cuda/gemm_launch.cuh"
#include "kernels/cuda/gemm_ptx.cuh"
#include "kernels/cuda/sampling.h"
#include "kernels/cuda/sampling_select.cuh"

namespace spillway::kernels::cuda {
namespace {

constexpr int kDrawWarps = kDrawThreads / 32;
constexpr int kListMax = 4096;
constexpr int kWidths = 64;                          // of half a nat each; what lies further below counts to the last
constexpr double kWidthRatio = 0.60653065971263342;  // e^-0.5

struct Best {
  double value;
  int token;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

struct Candidate {
  float logit;
  int token;
};

struct DrawShared {
  Best warp_best[kDrawWarps];
  Best block_best;
  unsigned long long mass;
  uint32_t widths[kWidths];
  uint32_t listed;
  unsigned long long warp_mass[kDrawWarps];
  Candidate list[kListMax];
  SelectShared select;
};

// Memory of another block of the cluster, or this block's own.
template <int kCluster, typename T>
__device__ __forceinline__ T* of_block(T* here, int rank) {
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster > 1) return cooperative_groups::this_cluster().map_shared_rank(here, rank);
#endif
  return here;
}
template <int kCluster>
__device__ __forceinline__ void sync_row() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster > 1) {
    cooperative_groups::this_cluster().sync();
    return;
  }
#endif
  __syncthreads();
}

__device__ __forceinline__ double gumbel(uint32_t bits) { return -log(-log((bits + 0.5) * 0x1p-32)); }
// Within 1e-3: to leave out what cannot be the largest.
__device__ __forceinline__ float gumbel_about(uint32_t bits) {
  const float upper = (static_cast<float>(~bits) + 0.5f) * 0x1p-32f;  // 1 - u
  const float e = bits < 0x80000000u ? -__logf((static_cast<float>(bits) + 0.5f) * 0x1p-32f) : -log1pf(-upper);
  return -__logf(e);
}

// Of all threads; to s.block_best and to every thread.
__device__ Best block_best(DrawShared& s, Best mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    mine = better(mine, {__shfl_xor_sync(~0u, mine.value, step), __shfl_xor_sync(~0u, mine.token, step)});
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.warp_best[threadIdx.x / 32] = mine;
  __syncthreads();
  mine = s.warp_best[0];
  for (int w = 1; w < kDrawWarps; ++w) mine = better(mine, s.warp_best[w]);
  if (threadIdx.x == 0) s.block_best = mine;
  __syncthreads();
  return mine;
}

template <int kCluster>
__device__ Best row_best(DrawShared& s, Best mine) {
  mine = block_best(s, mine);
  if constexpr (kCluster > 1) {
    sync_row<kCluster>();
    for (int r = 0; r < kCluster; ++r) mine = better(mine, *of_block<kCluster>(&s.block_best, r));
    sync_row<kCluster>();
  }
  return mine;
}

struct Row {
  const float* logits;
  RowDraw draw;
  int begin, end;  // this block's share
  float max, scale;
};

// f(token, logit) for each token of [begin, end) of the calling thread; several loads at a time.
template <typename Function>
__device__ __forceinline__ void each_token(const float* logits, int begin, int end, const Function& f) {
  int token = begin + static_cast<int>(threadIdx.x);
  for (; token + 7 * kDrawThreads < end; token += 8 * kDrawThreads) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = logits[token + i * kDrawThreads];
#pragma unroll
    for (int i = 0; i < 8; ++i) f(token + i * kDrawThreads, v[i] + 0.0f);
  }
  if (token >= end) return;
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = token + i * kDrawThreads < end ? logits[token + i * kDrawThreads] : 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (token + i * kDrawThreads < end) f(token + i * kDrawThreads, v[i] + 0.0f);
  }
}

__device__ __forceinline__ double noisy(const Row& row, int token, float logit) {
  return static_cast<double>(logit) * row.scale +
         gumbel(draw_noise(row.draw.key_low, row.draw.key_high, static_cast<uint32_t>(token)));
}

// What a thread saw of its tokens: the largest logit, and where noise is drawn the two largest values about.
struct Seen {
  float logit = -INFINITY, most = -INFINITY, second = -INFINITY;
  int token = 0x7FFFFFFF, most_token = 0x7FFFFFFF;
};

__device__ __forceinline__ float noisy_about(const Row& row, int token, float logit) {
  return logit * row.scale +
         gumbel_about(draw_noise(row.draw.key_low, row.draw.key_high, static_cast<uint32_t>(token)));
}

template <bool kNoise>
__device__ __forceinline__ Seen scan_share(const Row& row) {
  Seen seen;
  each_token(row.logits, row.begin, row.end, [&](int token, float logit) {
    if (logit > seen.logit) seen.logit = logit, seen.token = token;
    if constexpr (kNoise) {
      const float value = noisy_about(row, token, logit);
      seen.second = fmaxf(seen.second, fminf(value, seen.most));
      if (value > seen.most) seen.most = value, seen.most_token = token;
    }
  });
  return seen;
}

// The largest logit plus noise of the share: exactly among those that are about as large as the largest.
__device__ Best draw_unfiltered(DrawShared& s, const Row& row, const Seen& seen) {
  const auto most = static_cast<float>(block_best(s, {seen.most, 0}).value);
  const float near = most - 0.01f - 1e-6f * fabsf(most);
  Best best{-INFINITY, 0x7FFFFFFF};
  if (seen.second >= near) {
    each_token(row.logits, row.begin, row.end, [&](int token, float logit) {
      if (logit != -INFINITY && noisy_about(row, token, logit) >= near) {
        best = better(best, {noisy(row, token, logit), token});
      }
    });
  } else if (seen.most >= near && seen.most != -INFINITY) {
    best = {noisy(row, seen.most_token, row.logits[seen.most_token] + 0.0f), seen.most_token};
  }
  return best;
}

// Cuts by top_k, then top_p; then the draw. source as select_key's, element(f) calls f(token, logit).
template <typename Source, typename Element>
__device__ int draw_filtered(DrawShared& s, const Row& row, uint64_t row_mass, Best top, const Source& source,
                             const Element& element) {
  uint64_t least = 1, mass = row_mass;
  if (row.draw.top_k > 0) {
    least = select_key(s.select, source, least, static_cast<uint64_t>(row.draw.top_k), false);
    if (threadIdx.x == 0) s.mass = 0;
    __syncthreads();
    uint64_t mine = 0;
    source([&](uint64_t key, uint64_t weight) { mine += key >= least ? weight : 0; });
    atomicAdd(&s.mass, static_cast<unsigned long long>(mine));
    __syncthreads();
    mass = s.mass;
  }
  if (row.draw.top_p < 1.0f) {
    const auto wanted = static_cast<uint64_t>(static_cast<double>(row.draw.top_p) * static_cast<double>(mass));
    least = select_key(s.select, source, least, wanted > 0 ? wanted : 1, true);
  }
  const float floor = row.draw.min_p > 0 ? row.max + logf(row.draw.min_p) * row.draw.temperature : -INFINITY;
  Best best{-INFINITY, 0x7FFFFFFF};
  element([&](int token, float logit) {
    if (logit == -INFINITY) return;
    const bool kept = rank_key(logit, token) >= least && logit >= floor;
    if (kept || token == top.token) best = better(best, {noisy(row, token, logit), token});
  });
  return block_best(s, best).token;
}

// How far below the largest logit the candidates may lie, in widths of half a nat, and how many tokens lie there.
__device__ __forceinline__ int width_needed(const DrawShared& s, const Row& row, uint64_t row_mass, uint32_t* count) {
  uint32_t tokens = 0;
  // At most the mass of what lies further below: a bound from there is tight where few tokens hold nearly all of it.
  double below = 0, weight = 1;  // weight: the most that a token of the width has, e^(-width / 2)
#pragma unroll 1
  for (int w = 0; w < kWidths; ++w, weight *= kWidthRatio) below += s.widths[w] * weight;
  weight = 1;
  const double spare = (1 - static_cast<double>(row.draw.top_p)) * static_cast<double>(row_mass) * 0x1p-40;
  const int floor_width =
      row.draw.min_p > 0 ? static_cast<int>(fminf(-2.0f * logf(row.draw.min_p), 1e6f)) + 1 : 1 << 20;
  int width = 0;
#pragma unroll 1
  for (; width < kWidths; ++width, weight *= kWidthRatio) {
    tokens += s.widths[width];
    below -= s.widths[width] * weight;
    const bool enough = row.draw.top_k > 0   ? tokens >= static_cast<uint32_t>(row.draw.top_k)
                        : row.draw.top_p < 1 ? below * (1 + 1e-4) + 1e-9 <= spare
                                             : width >= floor_width;
    if (enough) break;
  }
  *count = tokens;
  return width;
}

template <int kCluster>
__device__ int draw_among(DrawShared& s, Row& row, Best top, int rank) {
  for (int i = threadIdx.x; i < kWidths; i += kDrawThreads) s.widths[i] = 0;
  if (threadIdx.x == 0) s.listed = 0, s.mass = 0;
  __syncthreads();
  const auto width_of = [&](float logit) {
    return static_cast<int>(fminf((row.max - logit) * row.scale * 2.0f, static_cast<float>(kWidths - 1)));
  };
  uint64_t mass = 0;
  each_token(row.logits, row.begin, row.end, [&](int, float logit) {
    if (logit == -INFINITY) return;
    mass += fixed_weight(logit, row.max, row.scale);
    const int width = width_of(logit);
    // Lanes of one width together: most tokens lie in few widths.
    const unsigned same = __match_any_sync(__activemask(), width);
    if (static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(same)) - 1) {
      atomicAdd(&s.widths[width], static_cast<uint32_t>(__popc(same)));
    }
  });
  atomicAdd(&s.mass, static_cast<unsigned long long>(mass));
  sync_row<kCluster>();
  uint64_t row_mass = 0;
  uint32_t widths = 0;
  for (int r = 0; r < kCluster; ++r) {
    row_mass += *of_block<kCluster>(&s.mass, r);
    if (threadIdx.x < kWidths) widths += of_block<kCluster>(s.widths, r)[threadIdx.x];
  }
  sync_row<kCluster>();
  if (threadIdx.x < kWidths) s.widths[threadIdx.x] = widths;
  __syncthreads();
  uint32_t count = 0;
  const int width = width_needed(s, row, row_mass, &count);
  const bool listed = width < kWidths - 1 && count <= kListMax;
  if (listed) {
    uint32_t* const next = of_block<kCluster>(&s.listed, 0);
    Candidate* const list = of_block<kCluster>(s.list, 0);
    each_token(row.logits, row.begin, row.end, [&](int token, float logit) {
      if (logit != -INFINITY && width_of(logit) <= width) list[atomicAdd(next, 1u)] = {logit, token};
    });
  }
  sync_row<kCluster>();
  if (rank != 0) return -1;
  const int listed_count = static_cast<int>(s.listed), vocab = row.draw.vocab;
  const auto from_list = [&](const auto& f) {
    for (int i = threadIdx.x; i < listed_count; i += kDrawThreads) f(s.list[i].token, s.list[i].logit);
  };
  const auto from_row = [&](const auto& f) { each_token(row.logits, 0, vocab, f); };
  const auto keys_of = [&](const auto& element) {
    return [&](const auto& f) {
      element([&](int token, float logit) {
        if (logit != -INFINITY) f(rank_key(logit, token), fixed_weight(logit, row.max, row.scale));
      });
    };
  };
  if (listed) return draw_filtered(s, row, row_mass, top, keys_of(from_list), from_list);
  return draw_filtered(s, row, row_mass, top, keys_of(from_row), from_row);
}

template <int kCluster>
__global__ void __launch_bounds__(kDrawThreads, 2)
    draw_kernel(const float* logits, int64_t stride, const RowDraw* draws, int32_t* tokens) {
  extern __shared__ __align__(16) char draw_shared[];
  DrawShared& s = *reinterpret_cast<DrawShared*>(draw_shared);
  ptx::wait_for_previous();
  ptx::launch_dependents();
  const int at = static_cast<int>(blockIdx.x) / kCluster, rank = static_cast<int>(blockIdx.x) % kCluster;
  Row row;
  row.logits = logits + at * stride;
  row.draw = draws[at];
  const int vocab = row.draw.vocab;
  if (vocab <= 0) return;  // the whole cluster
  row.begin = static_cast<int>(static_cast<int64_t>(vocab) * rank / kCluster);
  row.end = static_cast<int>(static_cast<int64_t>(vocab) * (rank + 1) / kCluster);
  row.scale = 1.0f / row.draw.temperature;
  const bool drawn = row.draw.temperature > 0;
  const bool filtered = row.draw.top_k > 0 || row.draw.top_p < 1.0f || row.draw.min_p > 0;
  const Seen seen = drawn && !filtered ? scan_share<true>(row) : scan_share<false>(row);
  const Best top = row_best<kCluster>(s, {seen.logit, seen.token});
  row.max = static_cast<float>(top.value);
  int token = top.token;
  if (!isfinite(row.max)) {
    token = -1;
  } else if (drawn) {
    token =
        filtered ? draw_among<kCluster>(s, row, top, rank) : row_best<kCluster>(s, draw_unfiltered(s, row, seen)).token;
  }
  if (rank == 0 && threadIdx.x == 0) tokens[at] = token;
}

template <int kCluster>
cudaError_t launch(const float* logits, int64_t stride, const RowDraw* draws, int rows, int32_t* tokens,
                   cudaStream_t stream) {
  const auto kernel = draw_kernel<kCluster>;
  const cudaError_t error = allow_shared(kernel, sizeof(DrawShared));
  if (error != cudaSuccess) return error;
  return launch_kernel(kernel, dim3(static_cast<unsigned>(rows * kCluster)), kDrawThreads, sizeof(DrawShared), stream,
                       true, kCluster, logits, stride, draws, tokens);
}

}  // namespace

cudaError_t launch_draw_rows(const float* logits, int64_t stride, const RowDraw* draws, int rows, int32_t* tokens,
                             cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (rows < 0 || stride < 1 || stride > kDrawVocabMax || logits == nullptr || draws == nullptr || tokens == nullptr) {
    return cudaErrorInvalidValue;
  }
  const int room = compute_capability() >= 90 ? processor_count() / rows : 1;
  if (room >= 8) return launch<8>(logits, stride, draws, rows, tokens, stream);
  if (room >= 4) return launch<4>(logits, stride, draws, rows, tokens, stream);
  if (room >= 2) return launch<2>(logits, stride, draws, rows, tokens, stream);
  return launch<1>(logits, stride, draws, rows, tokens, stream);
}

}  // namespace spillway::kernels::cuda
