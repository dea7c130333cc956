#include "kernels/encoder.h"

#include <functional>

#include "kernels/convolution.h"
#include "kernels/test_support.h"

namespace spillway::kernels {
namespace {

using namespace test;  // NOLINT: the vocabulary of the kernel tests

class EncoderKernels : public EveryIsa {};
SW_EVERY_ISA(EncoderKernels);

double at(const Tensor& t, int64_t i) { return static_cast<double>(t.as<float>()[i]); }

TEST_P(EncoderKernels, LayerNorm) {
  for (const int64_t width : {1, 5, 48, 131, 768}) {
    const int64_t rows = 5;
    const Tensor x = random_f32({rows, width}, 1), weight = random_f32({width}, 2), bias = random_f32({width}, 3);
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r) {
      double mean = 0, squares = 0;
      for (int64_t i = 0; i < width; ++i) mean += at(x, r * width + i) / static_cast<double>(width);
      for (int64_t i = 0; i < width; ++i) squares += std::pow(at(x, r * width + i) - mean, 2);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
      for (int64_t i = 0; i < width; ++i)
        expected.push_back((at(x, r * width + i) - mean) * inverse * at(weight, i) + at(bias, i));
    }
    const Tensor y = poisoned({rows, width});
    layer_norm(x, weight, bias, 1e-5f, y, stream_);
    EXPECT_LT(relative_error(y, expected), 4e-6) << width;
  }
}

TEST_P(EncoderKernels, Activations) {
  const std::pair<Activation, std::function<double(double)>> all[] = {
      {Activation::kGelu, [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {Activation::kGeluTanh,
       [](double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }},
      {Activation::kRelu, [](double x) { return x > 0 ? x : 0.0; }},
      {Activation::kSilu, [](double x) { return x / (1 + std::exp(-x)); }},
      {Activation::kTanh, [](double x) { return std::tanh(x); }}};
  for (const auto& [activation, reference] : all) {
    const Tensor x = random_f32({1, 1003}, 4, 3.0f);
    std::vector<double> expected;
    for (int64_t i = 0; i < 1003; ++i) expected.push_back(reference(at(x, i)));
    activate(x, activation, stream_);
    EXPECT_LT(relative_error(x, expected), 4e-7) << static_cast<int>(activation);
  }
}

// Every query against every key in double.
std::vector<double> attention(const Tensor& qkv, const std::vector<int32_t>& offsets, int heads, int dim, int window) {
  const int64_t hidden = int64_t{heads} * dim;
  std::vector<double> y(static_cast<size_t>(offsets.back() * hidden));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int h = 0; h < heads; ++h) {
      for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
        std::vector<double> weights;
        double total = 0;
        for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
          double score = 0;
          for (int d = 0; d < dim; ++d)
            score += at(qkv, t * 3 * hidden + h * dim + d) * at(qkv, j * 3 * hidden + hidden + h * dim + d);
          weights.push_back(window > 0 && std::abs(t - j) > window ? 0 : std::exp(score / std::sqrt(double(dim))));
          total += weights.back();
        }
        for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
          for (int d = 0; d < dim; ++d)
            y[static_cast<size_t>(t * hidden + h * dim + d)] += weights[static_cast<size_t>(j - offsets[s])] / total *
                                                                at(qkv, j * 3 * hidden + 2 * hidden + h * dim + d);
        }
      }
    }
  }
  return y;
}

TEST_P(EncoderKernels, AttentionOverSequences) {
  const std::vector<int32_t> offsets = {0, 1, 14, 47, 147};
  for (const int dim : {12, 32, 64}) {
    for (const int window : {0, 3, 40}) {
      const int heads = 2;
      const int64_t hidden = int64_t{heads} * dim;
      const Tensor qkv = random_f32({offsets.back(), 3 * hidden}, 5);
      const auto expected = attention(qkv, offsets, heads, dim, window);
      for (const bool half : {false, true}) {
        const Tensor y = poisoned({offsets.back(), hidden});
        SequenceAttentionArgs args;
        args.q = TensorView(qkv.as<float>(), DType::kF32, qkv.shape());
        args.k = TensorView(qkv.as<float>() + hidden, DType::kF32, qkv.shape());
        args.v = TensorView(qkv.as<float>() + 2 * hidden, DType::kF32, qkv.shape());
        args.row_stride = 3 * hidden;
        args.offsets = offsets;
        args.heads = heads;
        args.head_dim = dim;
        args.scale = 1 / std::sqrt(static_cast<float>(dim));
        args.window = window;
        args.half = half;
        args.y = y;
        sequence_attention(args, stream_);
        EXPECT_LT(relative_error(y, expected), half ? 0.02 : 1e-5) << dim << " window " << window << " half " << half;
      }
    }
  }
}

TEST_P(EncoderKernels, ProductsOfBytes) {
  for (const auto& [rows, k, n] : {std::tuple<int64_t, int64_t, int64_t>{1, 4, 7}, {25, 131, 40}, {13, 384, 64}}) {
    const Tensor x = random_f32({rows, k}, 6), w = random_f32({n, k}, 7), bias = random_f32({n}, 8);
    const auto packed = pack_linear({.weight = w.view(), .scales = {}}, Precision::kW8A8, stream_);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < n; ++o) {
        double sum = at(bias, o);
        for (int64_t i = 0; i < k; ++i) sum += at(x, r * k + i) * at(w, o * k + i);
        expected.push_back(sum > 0 ? sum : 0);
      }
    }
    const Tensor y = poisoned({rows, n});
    linear(x, *packed, y, stream_, {.bias = bias.view(), .activation = Activation::kRelu});
    EXPECT_LT(relative_error(y, expected), 0.02) << rows << " " << k << " " << n;
    for (int64_t r = 0; r < rows; ++r) {  // a row's bits are its own
      const Tensor alone = poisoned({1, n});
      linear(x.view().rows(r, r + 1), *packed, alone, stream_, {.bias = bias.view(), .activation = Activation::kRelu});
      EXPECT_TRUE(same_bits(alone, y.view().rows(r, r + 1)));
    }
  }
}

TEST_P(EncoderKernels, EmbeddingOfSevenBits) {
  const int64_t rows = 50, width = 203;
  const Tensor table = random_f32({rows, width}, 17);
  std::fill_n(table.as<float>() + 7 * width, 128, 0.0f);  // a group of zeros
  table.as<float>()[3] = 0;
  const QuantizedTable bytes = quantize_table(table, stream_);
  EXPECT_EQ(bytes.values.bytes(), size_t(rows * 26 * 7));
  Tensor ids(DType::kI32, {3}), y = poisoned({3, width});
  const int32_t chosen[] = {49, 0, 7};
  std::copy(chosen, chosen + 3, ids.as<int32_t>());
  EmbeddingNormArgs args;
  args.tokens = bytes.values.view();
  args.token_scales = bytes.scales.view();
  args.ids = ids.view();
  args.y = y;
  embedding_norm(args, stream_);
  for (int64_t t = 0; t < 3; ++t) {
    double error = 0, size = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double value = at(table, chosen[t] * width + i), scale = bytes.scales.as<float>()[chosen[t] * 2 + i / 128];
      const double reach = 63 * scale;  // what is larger was cut, for the sake of the rest
      EXPECT_NEAR(at(y, t * width + i), std::clamp(value, -reach - scale, reach), 0.501 * scale);
      error += (at(y, t * width + i) - value) * (at(y, t * width + i) - value);
      size += value * value;
    }
    EXPECT_LT(std::sqrt(error / size), 0.02) << t;
  }
}

// Two channels of x far larger than the rest, as behind layer norms: knowing of them keeps the rest precise.
TEST_P(EncoderKernels, ProductsOfBytesWithSpread) {
  const int64_t rows = 20, k = 200, n = 33;
  const Tensor x = random_f32({rows, k}, 14), w = random_f32({n, k}, 15), spread = random_f32({1, k}, 16);
  for (int64_t i = 0; i < k; ++i) spread.as<float>()[i] = i % 100 == 7 ? 60.0f : 1.0f;
  for (int64_t i = 0; i < rows * k; ++i) x.as<float>()[i] *= spread.as<float>()[i % k];
  std::vector<double> expected;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < n; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) sum += at(x, r * k + i) * at(w, o * k + i);
      expected.push_back(sum);
    }
  }
  double error[2];
  for (const bool known : {false, true}) {
    WeightSource source{.weight = w.view(), .scales = {}};
    if (known) source.spread.sizes = spread.view();
    const auto packed = pack_linear(source, Precision::kW8A8, stream_);
    ASSERT_TRUE(packed.ok()) << packed.error().message;
    const Tensor y = poisoned({rows, n});
    linear(x, *packed, y, stream_);
    error[known] = relative_error(y, expected);
  }
  EXPECT_LT(error[1], 0.01);
  EXPECT_LT(error[1], error[0]);
}

TEST_P(EncoderKernels, ConvolutionWithResidual) {
  const int inputs = 5, outputs = 37;
  const std::vector<ImageRows> images = {{0, 9, 6}, {54, 4, 11}};
  const int64_t pixels = 54 + 44;
  for (const Window window : {Window{1, 1, 0}, Window{1, 2, 0}, Window{3, 1, 1}, Window{3, 2, 1}, Window{7, 2, 3}}) {
    const int area = window.size * window.size;
    const Tensor x = random_f32({pixels, inputs}, 9), w = random_f32({outputs, area * inputs}, 10);
    std::vector<ImageRows> out;
    int64_t total = 0;
    for (const ImageRows& image : images) {
      out.push_back({total, window.output(image.height), window.output(image.width)});
      total += out.back().pixels();
    }
    const Tensor y = random_f32({total, outputs}, 11);
    std::vector<double> expected;
    for (size_t i = 0; i < images.size(); ++i) {
      for (int64_t p = 0; p < out[i].pixels(); ++p) {
        const int row = int(p) / out[i].width * window.stride - window.padding;
        const int column = int(p) % out[i].width * window.stride - window.padding;
        for (int o = 0; o < outputs; ++o) {
          double sum = at(y, (out[i].first + p) * outputs + o);
          for (int a = 0; a < area; ++a) {
            const int r = row + a / window.size, c = column + a % window.size;
            if (r < 0 || c < 0 || r >= images[i].height || c >= images[i].width) continue;
            const int64_t from = (images[i].first + int64_t{r} * images[i].width + c) * inputs;
            for (int ch = 0; ch < inputs; ++ch) sum += at(x, from + ch) * at(w, (int64_t{o} * area + a) * inputs + ch);
          }
          expected.push_back(sum > 0 ? sum : 0);
        }
      }
    }
    const auto packed = pack_linear({.weight = w.view(), .scales = {}}, Precision::kFp32, stream_);
    ASSERT_TRUE(packed.ok());
    convolution({.x = x,
                 .images = images,
                 .window = window,
                 .weight = &*packed,
                 .epilogue = {.bias = {}, .accumulate = true, .activation = Activation::kRelu},
                 .y = y,
                 .outputs = out},
                stream_);
    EXPECT_LT(relative_error(y, expected), 1e-5) << window.size << " by " << window.stride;
  }
}

}  // namespace
}  // namespace spillway::kernels
