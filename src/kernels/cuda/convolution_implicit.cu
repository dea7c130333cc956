#include <algorithm>

#include "kernels/cuda/convolution_implicit.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using implicit::Arguments;
using implicit::Multiply;

constexpr int kSplitsMax = 16;
constexpr int kSlicesMin = 8;  // of one block's share of K

int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <Multiply kMultiply, int kRows, int kOutputs>
void launch_tile(Arguments a, tensor::Stream& stream) {
  using Shape = implicit::Tile<typename implicit::Element<kMultiply>::Type, kRows, kOutputs>;
  a.slices = ceil_div(a.size * a.size * a.inputs, Shape::kSlice);
  const int tiles = ceil_div(a.outputs, kOutputs) * ceil_div(a.pixels, kRows);
  const int wanted = processor_count() / tiles;  // blocks that a multiprocessor each would still be free for
  a.splits = std::max(1, std::min({wanted, kSplitsMax, a.slices / kSlicesMin}));
  if (a.splits > 1) {
    a.parts = static_cast<float*>(stream.scratch(size_t(a.splits) * size_t(a.pixels) * size_t(a.outputs) * 4));
    a.counters = static_cast<int*>(Context::of(stream).attention_workspace(size_t(tiles) * 4, native(stream)));
  }
  launch_row_kernel(
      "convolve", implicit::convolve<kMultiply, kRows, kOutputs>,
      dim3(unsigned(ceil_div(a.outputs, kOutputs)), unsigned(ceil_div(a.pixels, kRows)), unsigned(a.splits)),
      Shape::kThreads, Shape::kShared, stream, a);
}

template <Multiply kMultiply>
void launch(const Arguments& a, tensor::Stream& stream) {
  const int64_t wide_tiles = int64_t(ceil_div(a.pixels, 128)) * ceil_div(a.outputs, 128);
  if (a.outputs > 64 && wide_tiles >= processor_count()) return launch_tile<kMultiply, 128, 128>(a, stream);
  if (ceil_div(a.pixels, 128) * ceil_div(a.outputs, 64) >= processor_count())
    return launch_tile<kMultiply, 128, 64>(a, stream);
  launch_tile<kMultiply, 64, 64>(a, stream);
}

}  // namespace

void convolve_implicitly(const DeviceConvolutionArgs& args, tensor::Stream& stream) {
  const DeviceConvolution& c = *args.convolution;
  Arguments a = {};
  a.x = args.x.data;
  a.w = c.weight.view().data;
  a.residual = args.residual.data;
  a.bias = args.bias ? c.bias.as<float>() : nullptr;
  a.y = args.y.data;
  a.pixels = int(args.y.shape[0]);
  a.height = args.images.height;
  a.width = args.images.width;
  a.inputs = c.inputs;
  a.out_height = c.window.output(a.height);
  a.out_width = c.window.output(a.width);
  a.outputs = c.outputs;
  a.size = c.window.size;
  a.stride = c.window.stride;
  a.padding = c.window.padding;
  a.relu = args.relu;
  switch (c.numbers) {
    case DeviceNumbers::kFp32:
      return launch<Multiply::kTf32Thrice>(a, stream);
    case DeviceNumbers::kTf32:
      return launch<Multiply::kTf32>(a, stream);
    case DeviceNumbers::kBf16:
      return launch<Multiply::kBf16>(a, stream);
    default:
      return launch<Multiply::kF16>(a, stream);
  }
}

}  // namespace spillway::kernels::cuda
