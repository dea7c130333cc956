#include "nn/convolution.h"

#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/encoder.h"
#include "nn/step.h"

namespace spillway::nn {
namespace {

using kernels::Activation;
using kernels::ImageRows;

constexpr double kNormEpsilon = 1e-5;

// What a batch norm at inference does: x * scale + shift by channel; without a norm the convolution's own bias.
struct Affine {
  std::vector<float> scale, shift;
};

Result<Affine> load_affine(const weights::WeightScope& scope, const ConvolutionNames& names, int outputs) {
  Affine affine{std::vector<float>(size_t(outputs), 1.0f), std::vector<float>(size_t(outputs), 0.0f)};
  if (scope.contains(names.convolution + ".bias")) {
    SW_ASSIGN(const tensor::Tensor bias, scope.f32(names.convolution + ".bias", {outputs}));
    affine.shift.assign(bias.as<float>(), bias.as<float>() + outputs);
  }
  if (names.norm.empty()) return affine;
  const weights::WeightScope norm = scope.scope(names.norm);
  SW_ASSIGN(const tensor::Tensor weight, norm.f32("weight", {outputs}));
  SW_ASSIGN(const tensor::Tensor bias, norm.f32("bias", {outputs}));
  SW_ASSIGN(const tensor::Tensor mean, norm.f32("running_mean", {outputs}));
  SW_ASSIGN(const tensor::Tensor variance, norm.f32("running_var", {outputs}));
  for (int i = 0; i < outputs; ++i) {
    const double scale = double(weight.as<float>()[i]) / std::sqrt(double(variance.as<float>()[i]) + kNormEpsilon);
    affine.scale[size_t(i)] = float(scale);
    affine.shift[size_t(i)] =
        float((double(affine.shift[size_t(i)]) - double(mean.as<float>()[i])) * scale + double(bias.as<float>()[i]));
  }
  return affine;
}

// [outputs, inputs, size, size] to [outputs, size, size, padded], each output times its scale.
tensor::Tensor channels_last(const float* weight, int outputs, int inputs, int padded, int size,
                             const std::vector<float>& scale) {
  const int64_t area = int64_t(size) * size;
  tensor::Tensor out = tensor::Tensor::zeros(tensor::DType::kF32, {outputs, size, size, padded});
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t i = 0; i < inputs; ++i) {
      for (int64_t a = 0; a < area; ++a) {
        out.as<float>()[(o * area + a) * padded + i] = weight[(o * inputs + i) * area + a] * scale[size_t(o)];
      }
    }
  }
  return out;
}

tensor::Tensor tensor_of(const std::vector<float>& values) {
  tensor::Tensor out(tensor::DType::kF32, {int64_t(values.size())});
  std::copy(values.begin(), values.end(), out.as<float>());
  return out;
}

}  // namespace

Result<ConvolutionWeights> load_convolution(const weights::WeightScope& scope, const ConvolutionNames& names,
                                            int inputs, int padded, int outputs, int size, bool fold) {
  SW_ASSIGN(const weights::StoredTensor stored,
            scope.tensor(names.convolution + ".weight", {outputs, inputs, size, size}));
  std::vector<float> values(size_t(stored.view().elements()));
  weights::widen(stored.view(), values.data());
  SW_ASSIGN(const Affine affine, load_affine(scope, names, outputs));
  const std::vector<float> ones(size_t(outputs), 1.0f);
  ConvolutionWeights loaded;
  loaded.weight = channels_last(values.data(), outputs, inputs, padded, size, fold ? affine.scale : ones);
  loaded.shift = tensor_of(affine.shift);
  if (!fold) loaded.scale = tensor_of(affine.scale);
  return loaded;
}

Result<Convolution> Convolution::load(const weights::WeightScope& scope, const ConvolutionNames& names, int inputs,
                                      int outputs, kernels::Window window, bool fold, LoadContext& context) {
  Convolution layer;
  layer.window_ = window;
  SW_ASSIGN(ConvolutionWeights loaded, load_convolution(scope, names, inputs, inputs, outputs, window.size, fold));
  const tensor::TensorView weight = loaded.weight.view();
  const kernels::WeightSource source{.weight = weight.reshaped({outputs, weight.elements() / outputs}), .scales = {}};
  SW_ASSIGN(layer.weight_, kernels::pack_linear(source, context.precision, context.stream));
  layer.bias_ = std::move(loaded.shift);
  layer.scale_ = std::move(loaded.scale);
  context.add(weight.elements() + outputs, int64_t(layer.weight_.bytes() + layer.bias_.bytes()));
  return layer;
}

std::vector<ImageRows> Convolution::output_rows(const std::vector<ImageRows>& rows) const {
  std::vector<ImageRows> out;
  int64_t first = 0;
  for (const ImageRows& image : rows) {
    out.push_back({first, window_.output(image.height), window_.output(image.width)});
    first += out.back().pixels();
  }
  return out;
}

void Convolution::run(const Images& x, const Images& y, const kernels::LinearOptions& epilogue,
                      const OneShotStep& step) const {
  kernels::convolution({.x = x.pixels,
                        .images = x.rows,
                        .window = window_,
                        .weight = &weight_,
                        .epilogue = epilogue,
                        .y = y.pixels,
                        .outputs = y.rows},
                       step.stream);
  step.count();
}

void Convolution::scale_and_shift(const Images& y, const OneShotStep& step) const {
  const int64_t channels = y.channels();
  float* data = y.pixels.as<float>();
  const float *scale = scale_.as<float>(), *shift = bias_.as<float>();
  step.stream.parallel_for(y.pixels.shape[0], 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t c = 0; c < channels; ++c) data[p * channels + c] = data[p * channels + c] * scale[c] + shift[c];
    }
  });
  step.count();
}

Images Convolution::apply(const Images& x, bool relu, const OneShotStep& step) const {
  Images y;
  y.rows = output_rows(x.rows);
  y.pixels = step.arena.f32({y.rows.back().first + y.rows.back().pixels(), outputs()});
  const Activation activation = relu ? Activation::kRelu : Activation::kNone;
  if (scale_.empty()) {
    run(x, y, {.bias = bias_.view(), .activation = activation}, step);
    return y;
  }
  run(x, y, {}, step);
  scale_and_shift(y, step);
  if (relu) {
    kernels::activate(y.pixels, activation, step.stream);
    step.count();
  }
  return y;
}

void Convolution::add_to(const Images& x, const Images& y, const OneShotStep& step) const {
  if (scale_.empty())
    return run(x, y, {.bias = bias_.view(), .accumulate = true, .activation = Activation::kRelu}, step);
  const ArenaScope scope(step.arena);
  const Images own = apply(x, false, step);
  kernels::add(y.pixels, own.pixels, step.stream);
  kernels::activate(y.pixels, Activation::kRelu, step.stream);
  step.count(2);
}

}  // namespace spillway::nn
