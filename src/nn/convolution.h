// Convolution: a convolution with its batch norm folded into weights and bias, and its residual and ReLU in the same
// kernel; or (Fusions::convolution off) one kernel for each. Owned by the model; engine's thread.
#pragma once

#include <string>
#include <vector>

#include "kernels/convolution.h"
#include "nn/linear.h"
#include "nn/one_shot_step.h"

namespace spillway::nn {

struct ConvolutionNames {
  std::string convolution;  // holds ".weight", and maybe ".bias"
  std::string norm;         // holds ".weight", ".bias", ".running_mean", ".running_var"; empty: no norm
};

// A convolution's weights as its kernels take them, in host memory, the norm folded in or beside.
struct ConvolutionWeights {
  tensor::Tensor weight;  // f32 [outputs, size, size, inputs]
  tensor::Tensor shift;   // f32 [outputs]: the bias
  tensor::Tensor scale;   // f32 [outputs] where it is not folded; else empty
};
// padded: inputs in memory, those past `inputs` are zeros.
Result<ConvolutionWeights> load_convolution(const weights::WeightScope& scope, const ConvolutionNames& names,
                                            int inputs, int padded, int outputs, int size, bool fold);

// The pixels of a batch of images, channels last.
struct Images {
  tensor::TensorView pixels;  // f32 [all pixels, channels]
  std::vector<kernels::ImageRows> rows;

  int64_t channels() const { return pixels.shape[1]; }
};

class Convolution {
 public:
  static Result<Convolution> load(const weights::WeightScope& scope, const ConvolutionNames& names, int inputs,
                                  int outputs, kernels::Window window, bool fold, LoadContext& context);

  int outputs() const { return int(weight_.n); }
  // Where y's pixels are for such an x.
  std::vector<kernels::ImageRows> output_rows(const std::vector<kernels::ImageRows>& rows) const;

  // A new image in the step's arena.
  Images apply(const Images& x, bool relu, const OneShotStep& step) const;
  // y = relu(y + convolution(x)): the end of a block. y holds the residual.
  void add_to(const Images& x, const Images& y, const OneShotStep& step) const;

 private:
  void run(const Images& x, const Images& y, const kernels::LinearOptions& epilogue, const OneShotStep& step) const;
  void scale_and_shift(const Images& y, const OneShotStep& step) const;

  kernels::Window window_;
  kernels::PackedLinear weight_;
  tensor::Tensor bias_;   // folded
  tensor::Tensor scale_;  // of an unfolded norm
};

}  // namespace spillway::nn
