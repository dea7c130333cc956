// The kernels of encoders on the first GPU against the CPU's twins in float32: fresh random inputs of every shape that
// the kernels treat apart, outputs poisoned.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <optional>
#include <random>

#include "kernels/device_encoder.h"
#include "kernels/device_image.h"
#include "kernels/rope.h"
#include "tensor/cuda/cuda.h"

namespace spillway::kernels {
namespace {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

constexpr double kE4M3Rounding = 0.0625;  // half a step of three bits

class DeviceEncoderKernels : public testing::TestWithParam<DeviceNumbers> {
 protected:
  void SetUp() override {
    const Status available = tensor::cuda::check_device(0);
    if (!available.ok()) GTEST_SKIP() << available.error().message;
    const Status computes = check_device_numbers(GetParam(), kDevice);
    if (!computes.ok()) GTEST_SKIP() << computes.error().message;
    auto opened = tensor::Stream::open(kDevice, 2);
    ASSERT_TRUE(opened.ok());
    stream_.emplace(std::move(*opened));
  }

  static constexpr tensor::Device kDevice{tensor::DeviceKind::kCuda, 0};
  DType type() const { return activation_type(GetParam()); }
  double tolerance() const {
    switch (GetParam()) {
      case DeviceNumbers::kFp32:
        return 1e-5;
      case DeviceNumbers::kTf32:
        return 3e-3;
      case DeviceNumbers::kBf16:
        // Before sm_90 a product is rounded before an activation that does not ride in it, and once more after.
        return tensor::cuda::device_info(0).capability() == 90 ? 1.2e-2 : 1.6e-2;
      case DeviceNumbers::kFp16:
        return 3e-3;
      default:
        return 1e-2;  // the twin rounds operands to e4m3 as well; sums of products in the library keep 14 bits
    }
  }

  // f32 on the host, already rounded to the activations' type; and its copy on the device.
  struct Pair {
    Tensor host, device;
  };
  Pair random(tensor::Shape shape, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    Pair pair{Tensor(DType::kF32, shape), Tensor(type(), shape, kDevice)};
    Tensor rounded(type(), shape);
    for (int64_t i = 0; i < shape.elements(); ++i) {
      float& value = pair.host.as<float>()[i];
      value = normal(random_);
      if (type() == DType::kF32) {
        rounded.as<float>()[i] = value;
      } else if (type() == DType::kBF16) {
        value = tensor::bf16_to_float(rounded.raw<uint16_t>()[i] = tensor::float_to_bf16(value));
      } else {
        value = tensor::f16_to_float(rounded.raw<uint16_t>()[i] = tensor::float_to_f16(value));
      }
    }
    stream_->upload(pair.device.view().data, rounded.view().data, rounded.bytes());
    return pair;
  }
  Tensor random_f32(tensor::Shape shape, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    Tensor host(DType::kF32, shape);
    for (int64_t i = 0; i < shape.elements(); ++i) host.as<float>()[i] = normal(random_);
    return host;
  }
  Tensor placed(const Tensor& host) {
    Tensor out(host.dtype(), host.shape(), kDevice);
    stream_->upload(out.view().data, host.view().data, host.bytes());
    return out;
  }
  Tensor ints(const std::vector<int32_t>& values) {
    Tensor out(DType::kI32, {int64_t(values.size())}, kDevice);
    stream_->upload(out.view().data, values.data(), values.size() * 4);
    return out;
  }
  // All bytes 0xff: not a number in every type.
  Tensor poisoned(tensor::Shape shape, DType dtype) {
    Tensor out(dtype, shape, kDevice);
    stream_->cuda().fill(out.view().data, 0xff, out.bytes());
    return out;
  }
  std::vector<float> read(const Tensor& device) {
    std::vector<std::byte> bytes(device.bytes());
    stream_->download(bytes.data(), device.view().data, bytes.size());
    std::vector<float> values;
    for (int64_t i = 0; i < device.shape().elements(); ++i) {
      const auto* halves = reinterpret_cast<const uint16_t*>(bytes.data());
      switch (device.dtype()) {
        case DType::kF32:
          values.push_back(reinterpret_cast<const float*>(bytes.data())[i]);
          break;
        case DType::kBF16:
          values.push_back(tensor::bf16_to_float(halves[i]));
          break;
        case DType::kF16:
          values.push_back(tensor::f16_to_float(halves[i]));
          break;
        default:
          values.push_back(tensor::f8e4m3_to_float(uint8_t(bytes[size_t(i)])));
      }
    }
    return values;
  }
  // Of the largest expected magnitude; not a number where anything is.
  static double error(const std::vector<float>& found, TensorView expected) {
    double largest = 0, apart = 0;
    for (int64_t i = 0; i < expected.elements(); ++i) {
      const double value = double(expected.as<float>()[i]), difference = std::abs(value - double(found[size_t(i)]));
      largest = std::max(largest, std::abs(value));
      if (!(difference <= apart)) apart = difference;
      if (std::isnan(difference)) return difference;
    }
    return apart / largest;
  }

  std::mt19937 random_{std::random_device{}()};
  std::optional<tensor::Stream> stream_;
  tensor::Stream cpu_{2};
};

std::string name_of_numbers(const testing::TestParamInfo<DeviceNumbers>& info) {
  constexpr const char* kNames[] = {"fp32", "tf32", "bf16", "fp16", "fp8"};
  return kNames[size_t(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Numbers, DeviceEncoderKernels,
                         testing::Values(DeviceNumbers::kFp32, DeviceNumbers::kTf32, DeviceNumbers::kBf16,
                                         DeviceNumbers::kFp16, DeviceNumbers::kFp8),
                         name_of_numbers);

// Quantised by hand where the product takes e4m3.
TEST_P(DeviceEncoderKernels, Products) {
  const bool fp8 = GetParam() == DeviceNumbers::kFp8;
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 16, 48}, {33, 144, 48}, {128, 512, 256}, {700, 96, 1024}}) {
    for (const Activation activation : {Activation::kNone, Activation::kGelu, Activation::kRelu, Activation::kTanh}) {
      Pair x = random({m, k});
      // Sums of about one, where every activation bends.
      Tensor w = random_f32({n, k}, 1 / std::sqrt(float(k)));
      const Tensor bias = random_f32({n});
      const Pair residual = random({m, n});
      const bool adds = activation == Activation::kNone || activation == Activation::kRelu;
      const WeightSource source{.weight = w.view(), .scales = {}};
      const auto packed = pack_device_linear(std::span(&source, 1), bias, GetParam(), type(), *stream_);
      ASSERT_TRUE(packed.ok()) << packed.error().message;
      DeviceScale scale;
      Tensor x8;
      if (fp8) {
        scale = make_device_scale(32, *stream_);
        Tensor bytes(DType::kF8E4M3, {m, k});
        for (int64_t i = 0; i < m * k; ++i) {
          const uint8_t byte = tensor::float_to_f8e4m3(x.host.as<float>()[i] * 32);
          bytes.raw<uint8_t>()[i] = byte;
          x.host.as<float>()[i] = tensor::f8e4m3_to_float(byte) / 32;
        }
        x8 = placed(bytes);
        for (int64_t i = 0; i < n * k; ++i) {  // the twin computes with the same roundings
          float& value = w.as<float>()[i];
          value = tensor::f8e4m3_to_float(tensor::float_to_f8e4m3(value * packed->scale.value)) / packed->scale.value;
        }
      }
      const Tensor y = poisoned({m, n}, type());
      DeviceProductArgs args;
      args.x = fp8 ? x8.view() : x.device.view();
      args.weight = &*packed;
      args.activation = activation;
      if (adds) args.residual = residual.device;
      args.y = y;
      args.x_scale = fp8 ? &scale : nullptr;
      device_product(args, *stream_);
      const auto twin = pack_linear(source, Precision::kFp32, cpu_);
      ASSERT_TRUE(twin.ok());
      Tensor expected(DType::kF32, {m, n});
      std::copy_n(residual.host.as<float>(), m * n, expected.as<float>());
      linear(x.host, *twin, expected, cpu_, {.bias = bias.view(), .accumulate = adds, .activation = activation});
      EXPECT_LT(error(read(y), expected), tolerance()) << m << " " << n << " " << k << " " << int(activation);
    }
  }
}

TEST_P(DeviceEncoderKernels, Norms) {
  // Few rows, which four warps share each where they are long, and many.
  for (const auto [width, rows] : std::vector<std::pair<int64_t, int64_t>>{
           {5, 37}, {48, 37}, {256, 37}, {768, 37}, {1024, 37}, {1536, 37}, {3000, 37}, {1024, 1501}, {5000, 2050}}) {
    const Pair x = random({rows, width}, 3);
    const Tensor weight = random_f32({width}), bias = random_f32({width});
    const Tensor y = poisoned({rows, width}, type()), y8 = poisoned({rows, width}, DType::kF8E4M3);
    const Tensor device_weight = placed(weight), device_bias = placed(bias);
    const DeviceScale scale = make_device_scale(16, *stream_);
    DeviceNormArgs args;
    args.x = x.device;
    args.weight = device_weight;
    args.bias = device_bias;
    args.eps = 1e-5f;
    args.y = y;
    if (width % 16 == 0) args.y8 = y8;
    args.scale = &scale;
    device_norm(args, *stream_);
    Tensor expected(DType::kF32, {rows, width});
    layer_norm(x.host, weight, bias, 1e-5f, expected, cpu_);
    EXPECT_LT(error(read(y), expected), std::min(tolerance(), 1e-2)) << width;
    if (args.y8.empty()) continue;
    std::vector<float> quantised = read(y8);
    for (float& value : quantised) value /= 16;
    EXPECT_LT(error(quantised, expected), kE4M3Rounding) << width;
  }
}

TEST_P(DeviceEncoderKernels, Embeddings) {
  const int64_t width = 144, rows = 51;
  const Pair words = random({100, width}), positions = random({60, width}), types = random({2, width});
  const Tensor weight = random_f32({width}), bias = random_f32({width});
  std::vector<int32_t> ids, position, type_of;
  for (int64_t t = 0; t < rows; ++t) {
    ids.push_back(int32_t(random_() % 100));
    position.push_back(int32_t(t));
    type_of.push_back(int32_t(random_() % 2));
  }
  const auto list = [](std::vector<int32_t>& values) {
    return TensorView(values.data(), DType::kI32, {int64_t(values.size())});
  };
  const Tensor device_ids = ints(ids), device_position = ints(position), device_type = ints(type_of);
  const Tensor device_weight = placed(weight), device_bias = placed(bias), y = poisoned({rows, width}, type());
  DeviceNormArgs args;
  args.tokens = words.device;
  args.positions = positions.device;
  args.types = types.device;
  args.ids = device_ids;
  args.position = device_position;
  args.type = device_type;
  args.first_position = 2;
  args.weight = device_weight;
  args.bias = device_bias;
  args.eps = 1e-12f;
  args.y = y;
  device_norm(args, *stream_);
  Tensor expected(DType::kF32, {rows, width});
  EmbeddingNormArgs twin;
  twin.tokens = words.host;
  twin.positions = positions.host;
  twin.types = types.host;
  twin.ids = list(ids);
  twin.position = list(position);
  twin.type = list(type_of);
  twin.first_position = 2;
  twin.weight = weight;
  twin.bias = bias;
  twin.eps = 1e-12f;
  twin.y = expected;
  embedding_norm(twin, cpu_);
  EXPECT_LT(error(read(y), expected), std::min(tolerance(), 1e-2));
}

TEST_P(DeviceEncoderKernels, AttentionOverSequences) {
  const std::vector<int32_t> offsets = {0, 1, 14, 78, 79, 180, 564};
  std::vector<int32_t> tiles;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int32_t row = offsets[s]; row < offsets[s + 1]; row += kAttentionTile)
      tiles.insert(tiles.end(), {row, offsets[s], offsets[s + 1], 0});
  }
  tiles.insert(tiles.end(), {0, 0, 0, 0});  // padding
  Tensor device_tiles = ints(tiles);
  for (const int dim : {12, 16, 32, 48, 64, 96, 128}) {
    for (const int window : {0, 3, 64}) {
      const int heads = dim == 64 ? 12 : 3;  // those of 64 have a kernel for work that fills the device
      const int64_t hidden = int64_t{heads} * dim, rows = offsets.back();
      const Pair qkv = random({rows, 3 * hidden}, 2);
      const Tensor y = poisoned({rows, hidden}, type()), y8 = poisoned({rows, hidden}, DType::kF8E4M3);
      const DeviceScale scale = make_device_scale(32, *stream_);
      Tensor expected(DType::kF32, {rows, hidden});
      SequenceAttentionArgs twin;
      DeviceAttentionArgs args;
      TensorView* host[] = {&twin.q, &twin.k, &twin.v};
      TensorView* device[] = {&args.q, &args.k, &args.v};
      for (int64_t i = 0; i < 3; ++i) {
        *host[i] = TensorView(qkv.host.as<float>() + i * hidden, DType::kF32, qkv.host.shape());
        *device[i] = TensorView(qkv.device.view().data + size_t(i * hidden) * tensor::size_of(type()), type(),
                                qkv.device.shape());
      }
      twin.row_stride = args.row_stride = 3 * hidden;
      twin.offsets = offsets;
      twin.heads = args.heads = heads;
      twin.head_dim = args.head_dim = dim;
      twin.scale = args.scale = 1 / std::sqrt(float(dim));
      twin.window = args.window = window;
      twin.y = expected;
      sequence_attention(twin, cpu_);
      args.tiles = TensorView(device_tiles.view().data, DType::kI32, {int64_t(tiles.size()) / 4, 4});
      args.exact = GetParam() == DeviceNumbers::kFp32;
      args.y = y;
      device_attention(args, *stream_);
      // Scores of up to 20 or so, whose rounding to 11 bits moves a weight by a percent.
      const double limit = GetParam() == DeviceNumbers::kTf32 ? 1e-2 : std::min(tolerance(), 1.2e-2);
      EXPECT_LT(error(read(y), expected), limit) << dim << " window " << window;
      if (GetParam() != DeviceNumbers::kFp8) continue;
      args.y = y8;
      args.y_scale = &scale;
      device_attention(args, *stream_);
      std::vector<float> quantised = read(y8);
      for (float& value : quantised) value /= 32;
      EXPECT_LT(error(quantised, expected), kE4M3Rounding) << dim << " window " << window;
    }
  }
}

TEST_P(DeviceEncoderKernels, RotatedHeads) {
  const int heads = 3, dim = 12;
  const int64_t rows = 21, stride = 50;
  const Pair x = random({rows, stride});
  const Tensor table = random_f32({rows, 2, dim / 2}), device_table = placed(table);
  std::vector<int32_t> position;
  for (int64_t t = 0; t < rows; ++t) position.push_back(int32_t(rows - 1 - t));
  const Tensor device_position = ints(position);
  device_rope(x.device, stride, heads, dim, device_table, device_position, *stream_);
  const std::vector<float> found = read(x.device);
  rope({.x = x.host,
        .cos_sin = table,
        .positions = TensorView(position.data(), DType::kI32, {rows}),
        .heads = heads,
        .head_dim = dim},
       cpu_);
  EXPECT_LT(error(found, x.host), std::min(tolerance(), 1e-2));
}

TEST_P(DeviceEncoderKernels, PoolsAndGates) {
  const std::vector<int32_t> offsets = {0, 1, 14, 78};
  const Pair x = random({78, 140});
  const Tensor device_offsets = ints(offsets);
  for (const Pooling pooling :
       {Pooling::kFirst, Pooling::kMean, Pooling::kMax, Pooling::kLast, Pooling::kMeanSqrtLength}) {
    const Tensor y = poisoned({3, 140}, DType::kF32);
    device_pool(x.device, device_offsets, pooling, y, *stream_);
    Tensor expected(DType::kF32, {3, 140});
    pool_rows(x.host, offsets, pooling, expected, cpu_);
    EXPECT_LT(error(read(y), expected), 4e-6) << int(pooling);
  }
  for (const Activation activation : {Activation::kGelu, Activation::kSilu}) {
    const Tensor y = poisoned({78, 70}, type());
    device_gate(x.device, activation, y, *stream_);
    Tensor expected(DType::kF32, {78, 70});
    gated_activation(x.host, activation, expected, cpu_);
    EXPECT_LT(error(read(y), expected), std::min(tolerance(), 1e-2));
  }
}

struct ConvolutionCase {
  int images, height, width, inputs, outputs;
  Window window;
};

// One image of many channels shares K among blocks.
TEST_P(DeviceEncoderKernels, ConvolutionsWithResidual) {
  if (GetParam() == DeviceNumbers::kFp8) return;
  for (const ConvolutionCase& c :
       {ConvolutionCase{2, 9, 6, 8, 40, {7, 2, 3}}, ConvolutionCase{3, 11, 5, 16, 72, {3, 1, 1}},
        ConvolutionCase{2, 10, 12, 64, 128, {3, 2, 1}}, ConvolutionCase{2, 10, 12, 64, 128, {1, 2, 0}},
        ConvolutionCase{3, 7, 7, 40, 64, {1, 1, 0}}, ConvolutionCase{1, 7, 7, 512, 96, {3, 1, 1}},
        ConvolutionCase{40, 28, 28, 24, 144, {3, 1, 1}}, ConvolutionCase{9, 56, 56, 8, 64, {3, 1, 1}},
        ConvolutionCase{6, 56, 57, 64, 40, {3, 1, 1}}, ConvolutionCase{45, 28, 28, 64, 136, {3, 2, 1}}}) {
    const ImageBatch batch{c.images, c.height, c.width};
    const ImageBatch out{c.images, c.window.output(c.height), c.window.output(c.width)};
    const Pair x = random({batch.pixels(), c.inputs}), residual = random({out.pixels(), c.outputs});
    const Tensor w = random_f32({c.outputs, c.window.size, c.window.size, c.inputs}), bias = random_f32({c.outputs});
    const auto packed = pack_device_convolution(w, bias, c.window, GetParam(), *stream_);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    const TensorView rows = w.view().reshaped({c.outputs, w.view().elements() / c.outputs});
    const auto twin = pack_linear({.weight = rows, .scales = {}}, Precision::kFp32, cpu_);
    ASSERT_TRUE(twin.ok());
    std::vector<ImageRows> from, to;
    for (int i = 0; i < c.images; ++i) {
      from.push_back({int64_t(i) * c.height * c.width, c.height, c.width});
      to.push_back({int64_t(i) * out.height * out.width, out.height, out.width});
    }
    for (const bool adds : {false, true}) {
      const Tensor y = poisoned({out.pixels(), c.outputs}, type());
      DeviceConvolutionArgs args;
      args.x = x.device;
      args.images = batch;
      args.convolution = &*packed;
      args.relu = true;
      if (adds) args.residual = residual.device;
      args.y = y;
      device_convolution(args, *stream_);
      Tensor expected(DType::kF32, {out.pixels(), c.outputs});
      std::copy_n(residual.host.as<float>(), expected.shape().elements(), expected.as<float>());
      convolution({.x = x.host,
                   .images = from,
                   .window = c.window,
                   .weight = &*twin,
                   .epilogue = {.bias = bias.view(), .accumulate = adds, .activation = Activation::kRelu},
                   .y = expected,
                   .outputs = to},
                  cpu_);
      EXPECT_LT(error(read(y), expected), tolerance()) << c.inputs << " to " << c.outputs << " by " << c.window.size;
    }
  }
}

// From planes to what a stem gives, which takes rows of pixels where the chip has warpgroup products.
TEST_P(DeviceEncoderKernels, Stem) {
  if (GetParam() == DeviceNumbers::kFp8) return;
  const Window window{7, 2, 3};
  const ImageBatch batch{3, 37, 22}, out{3, window.output(37), window.output(22)};
  const int64_t area = int64_t{37} * 22;
  for (const int64_t outputs : {48, 72}) {
    const Tensor planes = random_f32({3, 3, 37, 22}), device_planes = placed(planes), bias = random_f32({outputs});
    Tensor w = random_f32({outputs, 7, 7, kChannelStep}), x(DType::kF32, {batch.pixels(), kChannelStep});
    for (int64_t i = 0; i < w.shape().elements(); ++i) {
      if (i % kChannelStep >= 3) w.as<float>()[i] = 0;
    }
    for (int64_t i = 0; i < x.shape().elements(); ++i) {
      const int64_t pixel = i / kChannelStep, channel = i % kChannelStep;
      x.as<float>()[i] = channel < 3 ? planes.as<float>()[(pixel / area * 3 + channel) * area + pixel % area] : 0.0f;
    }
    const auto packed = pack_device_convolution(w, bias, window, GetParam(), *stream_);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    const Tensor pixels = poisoned(input_shape(*packed, batch), type()), y = poisoned({out.pixels(), outputs}, type());
    device_pixels(device_planes, batch, 3, pixels, *stream_);
    device_convolution({.x = pixels, .images = batch, .convolution = &*packed, .relu = true, .y = y}, *stream_);
    const TensorView rows = w.view().reshaped({outputs, w.view().elements() / outputs});
    const auto twin = pack_linear({.weight = rows, .scales = {}}, Precision::kFp32, cpu_);
    ASSERT_TRUE(twin.ok());
    std::vector<ImageRows> from, to;
    for (int i = 0; i < 3; ++i) {
      from.push_back({i * area, 37, 22});
      to.push_back({int64_t(i) * out.height * out.width, out.height, out.width});
    }
    Tensor expected(DType::kF32, {out.pixels(), outputs});
    convolution({.x = x,
                 .images = from,
                 .window = window,
                 .weight = &*twin,
                 .epilogue = {.bias = bias.view(), .activation = Activation::kRelu},
                 .y = expected,
                 .outputs = to},
                cpu_);
    EXPECT_LT(error(read(y), expected), tolerance()) << outputs;
  }
}

TEST_P(DeviceEncoderKernels, PixelsAndLargestOfWindows) {
  const ImageBatch batch{3, 13, 8};
  const Tensor planes = random_f32({3, 5, 13, 8}), device_planes = placed(planes);
  const Tensor pixels = poisoned({batch.pixels(), 8}, type());
  device_pixels(device_planes, batch, 5, pixels, *stream_);
  Tensor expected(DType::kF32, {batch.pixels(), 8});
  for (int64_t p = 0; p < batch.pixels(); ++p) {
    for (int64_t c = 0; c < 8; ++c)
      expected.as<float>()[p * 8 + c] = c < 5 ? planes.as<float>()[(p / 104 * 5 + c) * 104 + p % 104] : 0;
  }
  EXPECT_LT(error(read(pixels), expected), std::min(tolerance(), 1e-2));
  const Window window{3, 2, 1};
  const Pair x = random({batch.pixels(), 24});
  const ImageBatch out{3, window.output(13), window.output(8)};
  const Tensor y = poisoned({out.pixels(), 24}, type());
  device_max_pool(x.device, batch, window, y, *stream_);
  std::vector<ImageRows> from, to;
  for (int i = 0; i < 3; ++i) {
    from.push_back({i * 104, 13, 8});
    to.push_back({int64_t(i) * out.height * out.width, out.height, out.width});
  }
  Tensor largest(DType::kF32, {out.pixels(), 24});
  max_pool(x.host, from, window, largest, to, cpu_);
  EXPECT_LT(error(read(y), largest), 1e-6);
}

}  // namespace
}  // namespace spillway::kernels
