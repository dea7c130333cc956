// Checks experts_portable.h, which any chip runs, against float64 on random values, in every type; few tokens and more
// than pass at once; poisoned outputs; a token's bits beside others and alone. Argument "small": compute-sanitizer's
// sizes. Standalone: scripts/gpu_kernels.sh FOLDER experts_portable_check[:small].
#include <random>
#include <string>

#include "kernels/cuda/experts_portable.h"
#include "kernels/cuda/gemm_testing.cuh"

namespace spillway::kernels::cuda::testing {
namespace {

enum class Types { kBf16, kF16, kF8Bf16, kF8F16 };
const char* const kNames[] = {"bf16", "f16", "fp8, bf16", "fp8, f16"};

// Values of a type as stored, and as they read.
struct Values {
  std::vector<double> read;
  Buffer data;
  Values(size_t count, Scalar type, std::mt19937& random, float size) : read(count), data(count * 4) {
    std::normal_distribution<float> normal(0, size);
    std::vector<float> floats(count);
    std::vector<uint16_t> halves(count);
    for (size_t i = 0; i < count; ++i) {
      floats[i] = normal(random);
      if (type == Scalar::kBf16) {
        const __nv_bfloat16 value = __float2bfloat16(floats[i]);
        floats[i] = __bfloat162float(value);
        std::memcpy(&halves[i], &value, 2);
      } else if (type == Scalar::kF16) {
        const __half value = __float2half(floats[i]);
        floats[i] = __half2float(value);
        std::memcpy(&halves[i], &value, 2);
      }
      read[i] = floats[i];
    }
    const void* from = type == Scalar::kF32 ? static_cast<const void*>(floats.data()) : halves.data();
    check(cudaMemcpy(data.data, from, count * size_t(scalar_bytes(type)), cudaMemcpyHostToDevice), "upload");
  }
};

struct Matrix {
  Weight weight;
  std::vector<double> read;
  std::unique_ptr<Buffer> data, scales;
  Matrix(int experts, int n, int k, Types types, std::mt19937& random) : read(size_t(experts) * n * k) {
    weight.n = n, weight.k = k;
    if (types == Types::kBf16 || types == Types::kF16) {
      Values values(read.size(), types == Types::kF16 ? Scalar::kF16 : Scalar::kBf16, random, 0.05f);
      read = values.read;
      data = std::make_unique<Buffer>(read.size() * 2);
      check(cudaMemcpy(data->data, values.data.data, read.size() * 2, cudaMemcpyDeviceToDevice), "copy");
    } else {
      const int bands = (n + 127) / 128, groups = (k + 127) / 128;
      std::vector<float> factors(size_t(experts) * bands * groups);
      for (float& f : factors) f = 1e-4f * float(1 + random() % 8);
      std::vector<uint8_t> bytes(read.size());
      for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = uint8_t(random() % 0x7F | (random() & 0x80));  // no NaN; subnormals among them
        const size_t expert = i / (size_t(n) * k), row = i / k % n, column = i % k;
        __nv_fp8_e4m3 value;
        value.__x = bytes[i];
        read[i] = double(static_cast<float>(value)) * factors[(expert * bands + row / 128) * groups + column / 128];
      }
      data = std::make_unique<Buffer>(bytes.size()), scales = std::make_unique<Buffer>(factors.size() * 4);
      check(cudaMemcpy(data->data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "upload");
      check(cudaMemcpy(scales->data, factors.data(), factors.size() * 4, cudaMemcpyHostToDevice), "upload");
      weight.format = WeightFormat::kF8Block, weight.scales = scales->data;
    }
    weight.data = data->data;
  }
};

struct Case {
  int tokens, slots, experts, hidden, inter;
  bool add;
};

std::vector<double> expected_of(const Case& c, const Values& x, const std::vector<int32_t>& ids, const Values& factors,
                                const Matrix& up, const Matrix& down, const Values& begin) {
  std::vector<double> y(size_t(c.tokens) * c.hidden), h(size_t(c.inter));
  if (c.add) y = begin.read;
  for (int item = 0; item < c.tokens * c.slots; ++item) {
    const size_t token = size_t(item / c.slots), expert = size_t(ids[size_t(item)]);
    for (int i = 0; i < c.inter; ++i) {
      double gate = 0, value = 0;
      const double* row = &up.read[(expert * 2 * c.inter + i) * c.hidden];
      for (int k = 0; k < c.hidden; ++k) {
        gate += row[k] * x.read[token * c.hidden + k];
        value += row[size_t(c.inter) * c.hidden + k] * x.read[token * c.hidden + k];
      }
      h[size_t(i)] = gate / (1 + std::exp(-gate)) * value;
    }
    for (int i = 0; i < c.hidden; ++i) {
      double sum = 0;
      for (int k = 0; k < c.inter; ++k) sum += down.read[(expert * c.hidden + i) * c.inter + k] * h[size_t(k)];
      y[token * c.hidden + i] += factors.read[size_t(item)] * sum;
    }
  }
  return y;
}

int check_case(const Case& c, Types types) {
  std::mt19937 random(c.tokens * 31 + int(types));
  const Scalar half = types == Types::kF16 || types == Types::kF8F16 ? Scalar::kF16 : Scalar::kBf16;
  const Matrix up(c.experts, 2 * c.inter, c.hidden, types, random), down(c.experts, c.hidden, c.inter, types, random);
  const Values x(size_t(c.tokens) * c.hidden, half, random, 1);
  const Values factors(size_t(c.tokens) * c.slots, Scalar::kF32, random, 1);
  const Values begin(size_t(c.tokens) * c.hidden, Scalar::kF32, random, 1);
  std::vector<int32_t> ids(size_t(c.tokens) * c.slots);
  for (auto& id : ids) id = int32_t(random() % uint32_t(c.experts));
  const Buffer placed_ids(ids.size() * 4), y(begin.read.size() * 4), alone(size_t(c.hidden) * 4);
  check(cudaMemcpy(placed_ids.data, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice), "upload");
  ExpertsMlp m;
  m.tokens = c.tokens, m.slots = c.slots, m.experts = c.experts, m.hidden = c.hidden, m.inter = c.inter;
  m.x = x.data.data, m.x_type = half, m.x_stride = c.hidden, m.ids = placed_ids.as<int32_t>();
  m.weights = factors.data.as<float>(), m.gate_up = up.weight, m.down = down.weight;
  m.y = y.data, m.y_stride = c.hidden, m.add = c.add;
  const Buffer space(portable_experts_bytes(m, c.tokens));
  if (c.add) check(cudaMemcpy(y.data, begin.data.data, begin.read.size() * 4, cudaMemcpyDeviceToDevice), "copy");
  check(launch_experts_portable(m, space.data, space.bytes, nullptr), "experts");
  std::vector<float> found(begin.read.size()), one(size_t(c.hidden));
  check(cudaMemcpy(found.data(), y.data, found.size() * 4, cudaMemcpyDeviceToHost), "experts");

  const size_t last = size_t(c.tokens - 1);
  m.tokens = 1, m.x = x.data.as<uint16_t>() + last * c.hidden, m.ids += last * c.slots, m.weights += last * c.slots;
  m.y = alone.data;
  const float* start = begin.data.as<float>() + last * c.hidden;
  if (c.add) check(cudaMemcpy(alone.data, start, one.size() * 4, cudaMemcpyDeviceToDevice), "copy");
  check(launch_experts_portable(m, space.data, space.bytes, nullptr), "one token's experts");
  check(cudaMemcpy(one.data(), alone.data, one.size() * 4, cudaMemcpyDeviceToHost), "one token's experts");
  const bool same = std::memcmp(one.data(), &found[last * c.hidden], one.size() * 4) == 0;

  const std::vector<double> expected = expected_of(c, x, ids, factors, up, down, begin);
  double size = 0, error = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    size += expected[i] * expected[i], error += std::pow(found[i] - expected[i], 2);
  }
  const double relative = std::sqrt(error / size);
  const bool right = relative < 1e-5 && same;  // NaN is not; float32 sums, nothing else is rounded
  std::printf("%s %s: %d tokens, %d of %d experts, %d x %d: relative error %.1e%s\n", right ? "ok" : "WRONG",
              kNames[int(types)], c.tokens, c.slots, c.experts, c.hidden, c.inter, relative,
              same ? "" : ", other bits alone");
  return right ? 0 : 1;
}

int run(bool small) {
  int failures = 0;
  for (const Types types : {Types::kBf16, Types::kF16, Types::kF8Bf16, Types::kF8F16}) {
    failures += check_case({1, 2, 8, 256, 128, false}, types);
    failures += check_case({9, 3, 4, 272, 80, true}, types);
    if (small) continue;
    failures += check_case({70, 6, 32, 512, 384, true}, types);
    failures += check_case({530, 2, 8, 128, 64, false}, types);
  }
  return failures;
}

}  // namespace
}  // namespace spillway::kernels::cuda::testing

int main(int argc, char** argv) {
  return spillway::kernels::cuda::testing::run(argc > 1 && std::string(argv[1]) == "small");
}
