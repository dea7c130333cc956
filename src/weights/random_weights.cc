// Random weights of any shape, for measuring shapes whose checkpoint is not at hand.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>

#include "weights/weight_source.h"

namespace spillway::weights {
namespace {

uint64_t mix(uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

uint64_t hash(const std::string& name, uint64_t seed) {
  uint64_t h = mix(seed);
  for (const char c : name) h = mix(h ^ uint8_t(c));
  return h;
}

float uniform(uint64_t bits) { return float(double(bits >> 11) * 0x1.0p-53 * 2 - 1); }

// Which kind of tensor a name stands for, by the spelling of published checkpoints.
bool is_norm(const std::string& name) {
  return name.ends_with("norm.weight") || name.ends_with("Norm.weight") || name.ends_with("normalization.weight") ||
         name.ends_with("running_var");
}
bool is_projection(const std::string& name) {
  return (name.ends_with("_proj.weight") || name.ends_with("_proj_with_mqa.weight")) &&
         !name.ends_with("eh_proj.weight");
}

constexpr int kFp8Block = 128;
constexpr size_t kPatternBytes = 1 << 20;
constexpr float kFp8Std = 60;  // of the pattern's e4m3 values, before the block scale

// A pattern of kPatternBytes of random elements, repeated from a different offset for each tensor: generating afresh
// would take minutes for large shapes, and the kernels' speed does not depend on it.
class RandomSource final : public WeightSource {
 public:
  explicit RandomSource(RandomWeights options) : options_(options) {}

  bool contains(const std::string& name) const override {
    if (name.ends_with("_scale_inv")) return options_.fp8_blocks && is_projection(name.substr(0, name.size() - 10));
    return !name.ends_with("rotary_emb.inv_freq");
  }

  Result<StoredTensor> open(const std::string& name, const tensor::Shape& shape,
                            std::span<const tensor::DType> dtypes) const override {
    tensor::DType dtype = dtypes[0];
    const bool fp8 = options_.fp8_blocks && is_projection(name);
    for (const tensor::DType candidate : dtypes) {
      if (candidate == (fp8 ? tensor::DType::kF8E4M3 : options_.dtype)) dtype = candidate;
    }
    if (!fp8 && dtype == tensor::DType::kF8E4M3) dtype = options_.dtype;
    if (name.ends_with("_scale_inv")) dtype = tensor::DType::kF32;
    const size_t experts = name.find(".experts.");
    if (experts != std::string::npos) return StoredTensor(this, of_every_expert(name, dtype, shape), {});
    tensor::Tensor data(dtype, shape);
    fill(name, data);
    const tensor::TensorView view = data.view();
    return StoredTensor(this, view, std::move(data));
  }

  int64_t bytes_total() const override { return 0; }
  std::vector<std::string> names() const override { return {}; }

 private:
  void release(const tensor::TensorView&) const override {}

  // One tensor for all experts of all layers: a large model has 15,000 of each, and filling them takes longer than
  // anything else.
  tensor::TensorView of_every_expert(const std::string& name, tensor::DType dtype, const tensor::Shape& shape) const {
    const std::lock_guard lock(mutex_);
    tensor::Tensor& kept = experts_[{name.substr(name.find_last_of('.', name.find_last_of('.') - 1)), int(dtype)}];
    if (!kept.empty() && kept.shape() == shape) return kept;
    kept = tensor::Tensor(dtype, shape);
    fill(name, kept);
    return kept;
  }

  // Standard deviation that keeps activations of unit size through the layers.
  static float deviation(const std::string& name, const tensor::Shape& shape) {
    if (name.ends_with("bias")) return 0.02f;
    if (name.ends_with("embed_tokens.weight")) return 1.0f;
    return 1.0f / std::sqrt(float(shape[-1]));
  }

  void fill(const std::string& name, tensor::Tensor& data) const {
    const uint64_t seed = hash(name, options_.seed);
    if (name.ends_with("_scale_inv")) {
      // The weight's K is known to within a block, which is close enough for its scale.
      const float scale = 1.0f / (kFp8Std * std::sqrt(float(data.shape()[-1] * kFp8Block)));
      for (int64_t i = 0; i < data.shape().elements(); ++i) data.raw<float>()[i] = scale;
      return;
    }
    const float deviation_of_all = is_norm(name) ? 0 : deviation(name, data.shape());
    const float mean = is_norm(name) ? 1 : 0;
    const size_t element = tensor::size_of(data.dtype());
    const size_t total = data.bytes();
    const size_t pattern = std::min(total, kPatternBytes - (seed % 64) * 64);
    const float spread = deviation_of_all * std::sqrt(3.0f);
    for (size_t i = 0; i < pattern / element; ++i) {
      const uint64_t bits = mix(seed + i);
      put(data, i,
          data.dtype() == tensor::DType::kF8E4M3 ? uniform(bits) * kFp8Std * std::sqrt(3.0f)
                                                 : mean + uniform(bits) * spread);
    }
    for (size_t at = pattern; at < total; at += pattern) {
      std::memcpy(data.raw<std::byte>() + at, data.raw<std::byte>(), std::min(pattern, total - at));
    }
  }

  static void put(tensor::Tensor& data, size_t i, float value) {
    switch (data.dtype()) {
      case tensor::DType::kF32:
        data.raw<float>()[i] = value;
        return;
      case tensor::DType::kBF16:
        data.raw<uint16_t>()[i] = tensor::float_to_bf16(value);
        return;
      case tensor::DType::kF16:
        data.raw<uint16_t>()[i] = tensor::float_to_f16(value);
        return;
      case tensor::DType::kF8E4M3:
        data.raw<uint8_t>()[i] = tensor::float_to_f8e4m3(value);
        return;
      default:
        SW_CHECK(false, "random weights are f32, bf16, f16 or f8e4m3");
    }
  }

  RandomWeights options_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<std::string, int>, tensor::Tensor> experts_;
};

}  // namespace

std::unique_ptr<WeightSource> random_weights(RandomWeights options) { return std::make_unique<RandomSource>(options); }

}  // namespace spillway::weights
