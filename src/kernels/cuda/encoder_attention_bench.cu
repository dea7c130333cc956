// Attention of encoders over packed sequences: compares the kernels with float64, sequences of every kind of length
// among others of NaN, then times them at BERT-large's shapes beside their floors. Standalone: needs no model.
// `check` leaves the timing out, `small` most of the checks as well, for a sanitizer.
#include <numeric>
#include <random>

#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/encoder_attention_f32.cuh"
#include "kernels/cuda/encoder_attention_wgmma.cuh"
#include "kernels/cuda/gemm_testing.cuh"

namespace spillway::kernels::cuda::testing {
namespace {

constexpr int kDim = 64;
constexpr float kScaleLog2 = 1.4426950408889634f / 8;
constexpr double kRate = 684e12, kBandwidth = 4.25e12;  // measured products in bf16 and copies

template <class T>
__global__ void fill_rows(T* to, int64_t count, uint32_t seed, float size) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x)
    to[i] = from_float<T>(normal(i, seed) * size);
}

// A block a row and head, a thread an element.
template <class T>
__global__ void reference_rows(const T* qkv, const int32_t* begins, const int32_t* ends, int heads, int window,
                               double* y) {
  extern __shared__ double weights[];
  const int row = int(blockIdx.x), head = int(blockIdx.y), hidden = heads * kDim, d = int(threadIdx.x);
  int begin = begins[row], end = ends[row];
  if (window > 0) begin = max(begin, row - window), end = min(end, row + window + 1);
  const T* q = qkv + int64_t(row) * 3 * hidden + head * kDim;
  double largest = -1e300, total = 0, sum = 0;
  for (int key = begin + d; key < end; key += kDim) {
    double score = 0;
    const T* k = qkv + int64_t(key) * 3 * hidden + hidden + head * kDim;
    for (int i = 0; i < kDim; ++i) score += double(to_float(q[i])) * double(to_float(k[i]));
    weights[key - begin] = score * (kScaleLog2 * 0.6931471805599453);
  }
  __syncthreads();
  for (int key = begin; key < end; ++key) largest = fmax(largest, weights[key - begin]);
  for (int key = begin; key < end; ++key) {
    const double weight = exp(weights[key - begin] - largest);
    total += weight;
    sum += weight * double(to_float(qkv[int64_t(key) * 3 * hidden + 2 * hidden + head * kDim + d]));
  }
  y[int64_t(row) * hidden + head * kDim + d] = sum / total;
}

template <class T>
struct Texts {
  std::vector<int32_t> offsets{0}, begins, ends;
  int rows = 0, heads, spare = 130;  // rows of no sequence behind the rest
  int tile_count = 0;
  Buffer qkv, y, tiles, scale;

  Texts(const std::vector<int>& lengths, int heads_)
      : rows(std::accumulate(lengths.begin(), lengths.end(), 0)),
        heads(heads_),
        qkv(size_t(rows + spare) * 3 * size_t(heads) * kDim * sizeof(T)),
        y(size_t(rows) * size_t(heads) * kDim * sizeof(T)),
        tiles((lengths.size() + size_t(rows) / kAttentionTile + 3) * sizeof(AttentionTile)),
        scale(4) {
    std::vector<AttentionTile> list;
    for (const int length : lengths) {
      const int32_t row = offsets.back(), end = row + length;
      for (int32_t i = 0; i < length; i += kAttentionTile) list.push_back({row + i, row, end, 0});
      begins.insert(begins.end(), size_t(length), row);
      ends.insert(ends.end(), size_t(length), end);
      offsets.push_back(end);
    }
    list.insert(list.begin() + list.size() / 2, AttentionTile{});  // of no rows
    tile_count = int(list.size());
    check(cudaMemcpy(tiles.data, list.data(), list.size() * sizeof(AttentionTile), cudaMemcpyHostToDevice), "tiles");
    const float y_scale = 64;
    check(cudaMemcpy(scale.data, &y_scale, 4, cudaMemcpyHostToDevice), "scale");
    fill_rows<<<1024, 256>>>(qkv.as<T>(), int64_t(rows) * 3 * heads * kDim, std::random_device{}(), 1.5f);
  }
  void poison(int sequence) {
    const size_t row_bytes = size_t(3 * heads * kDim) * sizeof(T);
    check(cudaMemset(qkv.as<char>() + size_t(offsets[size_t(sequence)]) * row_bytes, 0xff,
                     size_t(offsets[size_t(sequence) + 1] - offsets[size_t(sequence)]) * row_bytes),
          "poison");
  }
  template <class Arguments>
  Arguments arguments(int window) const {
    using Pointer = decltype(Arguments::q);
    Arguments a = {};
    a.q = static_cast<Pointer>(qkv.data);
    a.k = static_cast<Pointer>(qkv.as<T>() + heads * kDim);
    a.v = static_cast<Pointer>(qkv.as<T>() + 2 * heads * kDim);
    a.tiles = tiles.as<AttentionTile>();
    a.stride = 3 * heads * kDim;
    a.heads = heads;
    a.dim = kDim;
    a.window = window;
    a.scale_log2 = kScaleLog2;
    a.y = static_cast<decltype(a.y)>(y.data);
    return a;
  }
  void wide(int window, bool bytes, cudaStream_t stream) const {
    sequence::Arguments a = arguments<sequence::Arguments>(window);
    a.tile_count = tile_count;
    a.y_scale = bytes ? scale.as<float>() : nullptr;
    CUtensorMap maps[3];
    const void* parts[] = {a.q, a.k, a.v};
    for (int i = 0; i < 3; ++i) {
      RowsMap map{parts[i], std::is_same_v<T, __half> ? tensor::DType::kF16 : tensor::DType::kBF16};
      map.rows = rows + spare;
      map.columns = heads * kDim;
      map.row_stride = a.stride * 2;
      map.outer_stride = map.row_stride * map.rows;
      if (!make_rows_map(&maps[i], map)) check(cudaErrorInvalidValue, "map");
    }
    const auto kernel = sequence::attend_wide<T>;
    check(allow_shared(kernel, int(sequence::kWideShared)), "shared");
    const int blocks = std::min(processor_count(), tile_count * heads);
    check(launch_kernel(kernel, dim3(unsigned(blocks)), sequence::kWideThreads, sequence::kWideShared, stream, true, 1,
                        a, maps[0], maps[1], maps[2]),
          "attend_wide");
  }
  void narrow(int window, cudaStream_t stream) const {
    const auto kernel = sequence::attend_sequences<T, kDim, true>;
    constexpr size_t kShared = 5 * sequence::kKeys * kDim * 2;
    check(allow_shared(kernel, int(kShared)), "shared");
    check(launch_kernel(kernel, dim3(unsigned(heads), unsigned(tile_count * sequence::kParts)), sequence::kThreads,
                        kShared, stream, true, 1, arguments<sequence::Arguments>(window)),
          "attend_sequences");
  }
  void full(int window, bool exact, cudaStream_t stream) const {
    using namespace sequence_f32;
    const auto kernel = exact ? attend_f32<kDim, true, true> : attend_f32<kDim, false, true>;
    check(allow_shared(kernel, int(sequence_f32::kShared<kDim>)), "shared");
    check(launch_kernel(kernel, dim3(unsigned(heads), unsigned(tile_count * sequence_f32::kParts<kDim>)),
                        sequence_f32::kThreads, sequence_f32::kShared<kDim>, stream, true, 1,
                        arguments<sequence_f32::Arguments>(window)),
          "attend_f32");
  }
  std::vector<double> reference(int window) const {
    Buffer b(begins.size() * 4), e(begins.size() * 4), out(size_t(rows) * size_t(heads) * kDim * 8);
    check(cudaMemcpy(b.data, begins.data(), begins.size() * 4, cudaMemcpyHostToDevice), "begins");
    check(cudaMemcpy(e.data, ends.data(), ends.size() * 4, cudaMemcpyHostToDevice), "ends");
    reference_rows<T><<<dim3(unsigned(rows), unsigned(heads)), kDim, 8 * 1024>>>(
        qkv.as<T>(), b.as<int32_t>(), e.as<int32_t>(), heads, window, out.as<double>());
    std::vector<double> host(out.bytes / 8);
    check(cudaMemcpy(host.data(), out.data, out.bytes, cudaMemcpyDeviceToHost), "reference");
    return host;
  }
  std::vector<float> outputs(bool bytes) const {
    std::vector<float> out(size_t(rows) * size_t(heads) * kDim);
    if (bytes) {
      std::vector<__nv_fp8_e4m3> raw(out.size());
      check(cudaMemcpy(raw.data(), y.data, raw.size(), cudaMemcpyDeviceToHost), "outputs");
      for (size_t i = 0; i < out.size(); ++i) out[i] = float(raw[i]) / 64;
      return out;
    }
    std::vector<T> raw(out.size());
    check(cudaMemcpy(raw.data(), y.data, raw.size() * sizeof(T), cudaMemcpyDeviceToHost), "outputs");
    for (size_t i = 0; i < out.size(); ++i) out[i] = float(raw[i]);
    return out;
  }
  // Rows of the poisoned sequence are left out.
  void compare_with(const char* what, int window, bool bytes, const std::vector<double>& expected, int poisoned,
                    double tolerance) const {
    std::vector<float> found = outputs(bytes);
    std::vector<double> wanted = expected;
    const size_t width = size_t(heads) * kDim;
    for (size_t i = size_t(offsets[size_t(poisoned)]) * width; i < size_t(offsets[size_t(poisoned) + 1]) * width; ++i)
      found[i] = 0, wanted[i] = 0;
    char text[80];
    std::snprintf(text, sizeof text, "%s, %d heads, window %d%s", what, heads, window, bytes ? ", e4m3" : "");
    compare(text, found, wanted, tolerance);
    check(cudaMemset(y.data, 0xff, y.bytes), "poison");
  }
};

template <class T>
void compare_all(const char* name, double tolerance, bool small) {
  const std::vector<int> few = {1, 65, 200, 40}, lengths = {1, 13, 64, 65, 200, 180, 192, 193, 384, 500, 63, 128};
  for (const int heads : small ? std::vector<int>{2} : std::vector<int>{3, 16}) {
    Texts<T> texts(small ? few : lengths, heads);
    const int poisoned = small ? 3 : 4;
    texts.poison(poisoned);
    for (const int window : small ? std::vector<int>{0, 64} : std::vector<int>{0, 3, 64}) {
      const std::vector<double> expected = texts.reference(window);
      if constexpr (sizeof(T) == 2) {
        texts.narrow(window, nullptr);
        texts.compare_with((std::string(name) + " mma.sync").c_str(), window, false, expected, poisoned, tolerance);
        if (compute_capability() != 90) continue;  // attend_wide is sm_90's
        texts.wide(window, false, nullptr);
        texts.compare_with((std::string(name) + " wgmma").c_str(), window, false, expected, poisoned, tolerance);
        texts.wide(window, true, nullptr);
        texts.compare_with((std::string(name) + " wgmma").c_str(), window, true, expected, poisoned, 0.04);
      } else {
        texts.full(window, false, nullptr);
        texts.compare_with("tf32", window, false, expected, poisoned, 1e-3);
        texts.full(window, true, nullptr);
        texts.compare_with("fp32", window, false, expected, poisoned, 1e-5);
      }
    }
  }
}

std::vector<int> squad_lengths(int tokens) {
  std::mt19937 random(1);
  std::lognormal_distribution<double> length(5.03, 0.38);
  std::vector<int> lengths;
  while (tokens > 0) {
    lengths.push_back(std::min(tokens, std::clamp(int(length(random)), 40, 384)));
    tokens -= lengths.back();
  }
  return lengths;
}

template <class T>
void time_shape(const char* name, const std::vector<int>& lengths) {
  const Texts<T> texts(lengths, 16);
  double flops = 0;
  for (const int n : lengths) flops += 4.0 * 1024 * n * n;
  const double bytes = double(texts.rows) * 4 * 1024 * sizeof(T);
  const auto row = [&](const char* kernel, double rate, const std::function<void(int, cudaStream_t)>& body) {
    const double seconds = time_graph(8, 20, body);
    const double floor = std::max(flops / rate, bytes / kBandwidth);
    std::printf("%-10s %-14s %8.1f us  floor %6.1f us (products %.1f, bytes %.1f)  %5.0f TFLOP/s\n", kernel, name,
                seconds * 1e6, floor * 1e6, flops / rate * 1e6, bytes / kBandwidth * 1e6, flops / seconds * 1e-12);
    std::fflush(stdout);
  };
  if constexpr (sizeof(T) == 2) {
    row("mma.sync", kRate, [&](int, cudaStream_t stream) { texts.narrow(0, stream); });
    if (compute_capability() != 90) return;
    row("wgmma", kRate, [&](int, cudaStream_t stream) { texts.wide(0, false, stream); });
    row("wgmma e4m3", kRate, [&](int, cudaStream_t stream) { texts.wide(0, true, stream); });
  } else {
    row("tf32", kRate / 2, [&](int, cudaStream_t stream) { texts.full(0, false, stream); });
    row("fp32", kRate / 6, [&](int, cudaStream_t stream) { texts.full(0, true, stream); });
  }
}

}  // namespace

void run(bool timing, bool small) {
  compare_all<__half>("fp16", 1e-3, small);
  compare_all<__nv_bfloat16>("bf16", 8e-3, small);
  compare_all<float>("float", 0, small);
  if (!timing) return;
  time_shape<__half>("64 x 384", std::vector<int>(64, 384));
  time_shape<__half>("64 x 128", std::vector<int>(64, 128));
  time_shape<__half>("SQuAD 32768", squad_lengths(32768));
  time_shape<__half>("1 x 128", {128});
  time_shape<__nv_bfloat16>("64 x 384 bf16", std::vector<int>(64, 384));
  time_shape<float>("64 x 384", std::vector<int>(64, 384));
  time_shape<float>("1 x 128", {128});
}

}  // namespace spillway::kernels::cuda::testing

int main(int count, char** arguments) {
  const bool small = count > 1 && std::string(arguments[1]) == "small";
  spillway::kernels::cuda::testing::run(count < 2, small);
  std::printf("%d failures\n", spillway::kernels::cuda::testing::failures);
  return spillway::kernels::cuda::testing::failures > 0 ? 1 : 0;
}
