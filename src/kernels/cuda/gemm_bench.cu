// Times of the products of few rows ("few", or one token's step alone: "token") and of the bf16 products of more
// ("wide"); gemm_check.cu checks them. Standalone: scripts/gpu_kernels.sh FOLDER gemm_bench[:few].
#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_split.h"
#include "kernels/cuda/gemm_bf16_wide.h"
#include "kernels/cuda/gemm_cublaslt.h"
#include "kernels/cuda/gemm_testing.cuh"
#include "kernels/cuda/gemv_experts.h"
#include "kernels/cuda/gemv_small_batch.h"

namespace spillway::kernels::cuda {
namespace {

using namespace testing;  // NOLINT

struct Pool {
  Buffer data{size_t{17} << 30};
  Buffer scales{size_t{1} << 30};
  WeightFormat filled = WeightFormat::kInt4;
  Pool() {
    fill(data.data, int64_t{17} << 30, Fill::kBytes, 5);
    fill(scales.data, int64_t{1} << 29, Fill::kScaleF16, 6, 1e-3f);
  }
  void prepare(WeightFormat format) {
    if (format == WeightFormat::kBf16) fill(data.data, int64_t{17} << 29, Fill::kBf16, 5, 0.02f);
    if (format == WeightFormat::kF8Block) {
      fill(data.data, int64_t{17} << 30, Fill::kF8, 5);
      fill(scales.data, int64_t{1} << 28, Fill::kScaleF32, 6, 1e-3f);
    }
  }
};

// The next weight of the pool; goes round before the end.
struct Cursor {
  const Pool& pool;
  size_t at = 0;
  Weight next(WeightFormat format, int n, int k) {
    const size_t bytes = (weight_data_bytes(format, n, k) + 255) / 256 * 256;
    if (at + bytes > pool.data.bytes) at = 0;
    const Weight weight{format, n, k, pool.data.as<char>() + at, pool.scales.as<char>() + at / 32, 128};
    at += bytes;
    return weight;
  }
};

double weight_bytes(WeightFormat format, double n, double k) {
  return static_cast<double>(weight_data_bytes(format, static_cast<int64_t>(n), static_cast<int64_t>(k))) +
         static_cast<double>(weight_scale_bytes(format, static_cast<int64_t>(n), static_cast<int64_t>(k)));
}

void time_small_batches(const Pool& pool, WeightFormat format, std::initializer_list<int> rows = {1, 2, 4, 8, 16, 32}) {
  const int shapes[][2] = {{4608, 3584}, {3584, 3584},  {37888, 3584}, {3584, 18944}, {152064, 3584},
                           {2112, 7168}, {24576, 1536}, {7168, 16384}, {4096, 7168},  {7168, 2048}};
  Buffer x(32 * 18944 * 2), y(static_cast<size_t>(32) * 152064 * 2);
  fill(x.data, 32 * 18944, Fill::kBf16, 9);
  for (const auto& shape : shapes) {
    std::printf("%-5s n=%-7d k=%-6d", format_name(format), shape[0], shape[1]);
    for (const int m : rows) {
      Cursor cursor{pool};
      const double seconds = time_graph(shape[0] > 30000 ? 6 : 24, 5, [&](int, cudaStream_t stream) {
        SmallBatchProduct p;
        p.m = m, p.x = x.data, p.x_stride = shape[1], p.weight = cursor.next(format, shape[0], shape[1]);
        p.y = y.data, p.y_stride = shape[0];
        check(launch_small_batch(p, stream), "small batch");
      });
      std::printf("  m%-2d %6.1f us %.2f TB/s", m, seconds * 1e6,
                  weight_bytes(format, shape[0], shape[1]) / seconds * 1e-12);
    }
    std::printf("\n");
  }
}

// R1's routed experts of one step: 8 of 256 a token.
void time_experts(const Pool& pool) {
  constexpr int kSets = 8, kSlots = 8;
  Buffer x(16 * 7168 * 2), h(128 * 2048 * 2), y(16 * 7168 * 2), weights(128 * 4), ids(kSets * 128 * 4);
  fill(x.data, 16 * 7168, Fill::kBf16, 1);
  fill(h.data, 128 * 2048, Fill::kBf16, 2);
  fill(weights.data, 128, Fill::kF32, 3);
  std::vector<int32_t> chosen(kSets * 128);
  for (size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<int32_t>(i * 89 % 256);
  check(cudaMemcpy(ids.data, chosen.data(), chosen.size() * 4, cudaMemcpyHostToDevice), "copy");
  for (const int tokens : {1, 2, 4}) {
    const double seconds = time_graph(16, 5, [&](int i, cudaStream_t stream) {
      ExpertProduct p;
      p.tokens = tokens, p.slots = kSlots, p.experts = 256, p.ids = ids.as<int32_t>() + i % kSets * 128,
      p.weights = weights.as<float>();
      p.x = x.data, p.x_stride = 7168, p.y = h.data, p.y_stride = 2048;
      p.weight = {WeightFormat::kF8Block, 4096, 7168, pool.data.data, pool.scales.data, 128};
      check(launch_experts_gate_up(p, stream), "gate up");
      p.x = h.data, p.x_stride = 2048, p.y = y.data, p.y_stride = 7168;
      p.weight = {WeightFormat::kF8Block, 7168, 2048, pool.data.as<char>() + (size_t{8} << 30), pool.scales.data, 128};
      check(launch_experts_down(p, stream), "down");
    });
    const double bytes = static_cast<double>(tokens) * kSlots * 3 * 2048 * 7168;
    std::printf("R1 experts of %d tokens: %.1f us, %.2f TB/s\n", tokens, seconds * 1e6, bytes / seconds * 1e-12);
  }
}

// Beside the library's.
void time_bf16_products(const Pool& pool) {
  const int shapes[][2] = {{4608, 3584}, {3584, 3584}, {37888, 3584}, {3584, 18944}, {152064, 3584}};
  Buffer x(256 * 18944 * 2), y(static_cast<size_t>(256) * 152064 * 2), workspace(LtProducts::kWorkspaceBytes);
  fill(x.data, 256 * 18944, Fill::kBf16, 9);
  LtProducts library;
  enum : int { kLibrary, kAlone, kSharedOrWide };  // the latter as Bf16Product::share
  const char* const names[] = {"cublaslt", "share 1", "share 2 or wide"};
  for (const auto& shape : shapes) {
    for (const int share : {kLibrary, kAlone, kSharedOrWide}) {
      std::printf("bf16 product %s n=%-7d k=%-6d", names[share], shape[0], shape[1]);
      for (const int m : {16, 32, 64, 128, 256}) {
        Cursor cursor{pool};
        const double seconds = time_graph(shape[0] > 30000 ? 6 : 24, 5, [&](int, cudaStream_t stream) {
          const Weight weight = cursor.next(WeightFormat::kBf16, shape[0], shape[1]);
          if (share == kLibrary) {
            DenseProduct p;
            p.m = m, p.n = shape[0], p.k = shape[1], p.x = x.data, p.x_stride = shape[1], p.w = weight.data;
            p.y = y.data, p.y_stride = shape[0];
            return check(library.run(p, workspace.data, workspace.bytes, stream), "cublaslt");
          }
          Bf16Product p;
          p.m = m, p.x = x.data, p.x_stride = shape[1], p.weight = weight;
          p.y = y.data, p.y_stride = shape[0], p.share = share;
          const bool wide = share == 2 && m <= 128 && shape[0] > 30000;
          check(wide ? launch_bf16_wide_product(p, stream) : launch_bf16_product(p, stream), "bf16 product");
        });
        std::printf("  m%-3d %6.1f us %.2f TB/s", m, seconds * 1e6, 2.0 * shape[0] * shape[1] / seconds * 1e-12);
      }
      std::printf("\n");
    }
  }
}

// Products of few outputs, beside the library's: one after the other, each started early.
void time_split_products(const Pool& pool) {
  const int shapes[][2] = {{4608, 3584}, {3584, 3584}, {3584, 18944}};
  Buffer x(32 * 18944 * 2), y(static_cast<size_t>(32) * 4608 * 2), workspace(LtProducts::kWorkspaceBytes);
  fill(x.data, 32 * 18944, Fill::kBf16, 9);
  fill(y.data, 32 * 4608, Fill::kBf16, 10);
  LtProducts library;
  for (const auto& shape : shapes) {
    for (const int split : {-1, 0, 1, 2, 3, 4}) {
      std::printf("bf16 %s %d n=%-5d k=%-6d", split < 0 ? "cublaslt" : "split", split, shape[0], shape[1]);
      for (const int m : {16, 32}) {
        Cursor cursor{pool};
        const double seconds = time_graph(24, 9, [&](int, cudaStream_t stream) {
          const Weight weight = cursor.next(WeightFormat::kBf16, shape[0], shape[1]);
          const bool add = shape[0] == 3584;
          if (split < 0) {
            DenseProduct p;
            p.m = m, p.n = shape[0], p.k = shape[1], p.x = x.data, p.x_stride = shape[1], p.w = weight.data;
            p.y = y.data, p.y_stride = shape[0], p.accumulate = add;
            return check(library.run(p, workspace.data, workspace.bytes, stream), "cublaslt");
          }
          Bf16Product p;
          p.m = m, p.x = x.data, p.x_stride = shape[1], p.weight = weight;
          p.y = y.data, p.y_stride = shape[0], p.epilogue = add ? Epilogue::kAdd : Epilogue::kStore;
          check(launch_bf16_split_product(p, stream, split), "bf16 split product");
        });
        std::printf("  m%-3d %6.1f us %.2f TB/s", m, seconds * 1e6, 2.0 * shape[0] * shape[1] / seconds * 1e-12);
      }
      std::printf("\n");
    }
  }
}

// Qwen2.5-7B's products of one decode step, chained as in the model (without attention), in one graph.
void time_model(const Pool& pool, WeightFormat format, int m, bool overlap, bool wide = false, int blocks = 0) {
  Buffer x(static_cast<size_t>(m) * 3584 * 2), qkv(static_cast<size_t>(m) * 4608 * 2),
      h(static_cast<size_t>(m) * 18944 * 2), logits(static_cast<size_t>(m) * 152064 * 4), norm(3584 * 2);
  fill(x.data, m * 3584, Fill::kBf16, 3);
  fill(qkv.data, m * 4608, Fill::kBf16, 4);
  fill(norm.data, 3584, Fill::kBf16, 5);
  double bytes = 0;
  const double seconds = time_graph(1, 9, [&](int, cudaStream_t stream) {
    Cursor cursor{pool};
    bytes = 0;
    const auto product = [&](const Buffer& from, int64_t stride, int n, int k, const Buffer& to, int columns,
                             Epilogue epilogue, bool normed, Scalar y_type) {
      bytes += weight_bytes(format, n, k);
      if (wide) {
        Bf16Product p;
        p.m = m, p.x = from.data, p.x_stride = stride, p.weight = cursor.next(format, n, k);
        p.y = to.data, p.y_stride = columns, p.y_type = y_type, p.epilogue = epilogue;
        check(launch_bf16_product(p, stream), "model");
        return;
      }
      SmallBatchProduct p;
      p.m = m, p.x = from.data, p.x_stride = stride, p.weight = cursor.next(format, n, k);
      if (normed) p.norm_weight = norm.data;
      p.y = to.data, p.y_stride = columns, p.y_type = y_type, p.epilogue = epilogue, p.overlap = overlap;
      p.blocks = blocks;
      check(launch_small_batch(p, stream), "model");
    };
    for (int layer = 0; layer < 28; ++layer) {
      product(x, 3584, 4608, 3584, qkv, 4608, Epilogue::kStore, true, Scalar::kBf16);
      product(qkv, 4608, 3584, 3584, x, 3584, Epilogue::kAdd, false, Scalar::kBf16);
      product(x, 3584, 37888, 3584, h, 18944, Epilogue::kSwiGlu, true, Scalar::kBf16);
      product(h, 18944, 3584, 18944, x, 3584, Epilogue::kAdd, false, Scalar::kBf16);
    }
    product(x, 3584, 152064, 3584, logits, 152064, Epilogue::kStore, true, Scalar::kF32);
  });
  std::printf("Qwen2.5-7B %-5s %s m=%-3d overlap %d: %.3f ms, %.2f TB/s, %.0f tok/s without attention (blocks %d)\n",
              format_name(format), wide ? "wide" : "few ", m, overlap, seconds * 1e3, bytes / seconds * 1e-12,
              m / seconds, blocks);
}

__global__ void read_kernel(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count; i += 8 * step) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i + j * step < count) {
        const uint4 q = __ldcs(data + i + j * step);
        sum += q.x ^ q.y ^ q.z ^ q.w;
      }
    }
  }
  if (sum == 0x12345678) *out = sum;
}

void time_ceiling(const Pool& pool) {
  Buffer out(16);
  const double seconds = time_graph(1, 5, [&](int, cudaStream_t stream) {
    read_kernel<<<132 * 4, 512, 0, stream>>>(pool.data.as<uint4>(), int64_t{8} << 26, out.as<uint32_t>());
  });
  std::printf("ceiling: plain reads of 8 GiB %.2f TB/s\n", static_cast<double>(int64_t{8} << 30) / seconds * 1e-12);
}

void run_few() {
  Pool pool;
  time_ceiling(pool);
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kF8Block, WeightFormat::kBf16}) {
    pool.prepare(format);
    for (const int m : {1, 8, 32}) time_model(pool, format, m, true);
    time_model(pool, format, 1, false);
    if (format == WeightFormat::kF8Block) time_experts(pool);
    time_small_batches(pool, format);
  }
}

// One token's step only.
int run_token() {
  Pool pool;
  time_ceiling(pool);
  for (const auto format : {WeightFormat::kInt4, WeightFormat::kInt8, WeightFormat::kF8Block, WeightFormat::kBf16}) {
    pool.prepare(format);
    for (const int blocks : {0, 1, 2}) time_model(pool, format, 1, true, false, blocks);
    for (const int m : {2, 4}) time_model(pool, format, m, true);
    time_small_batches(pool, format, {1});
  }
  return 0;
}

void run_wide() {
  Pool pool;
  pool.prepare(WeightFormat::kBf16);
  for (const int m : {16, 32, 64, 128, 256}) time_model(pool, WeightFormat::kBf16, m, true, true);
  time_bf16_products(pool);
}

int run_split() {
  Pool pool;
  pool.prepare(WeightFormat::kBf16);
  time_split_products(pool);
  return 0;
}

int run(const char* part) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);
  if (std::strcmp(part, "token") == 0) return run_token();
  if (std::strcmp(part, "split") == 0) return run_split();
  if (std::strcmp(part, "wide") != 0) run_few();
  if (std::strcmp(part, "few") != 0) run_wide();
  return 0;
}

}  // namespace
}  // namespace spillway::kernels::cuda

int main(int argc, char** argv) { return spillway::kernels::cuda::run(argc > 1 ? argv[1] : "all"); }
