#include <algorithm>

#include "kernels/cuda/convolution_wgmma.cuh"
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
  const bool clusters = compute_capability() >= 90;
  a.splits = std::max(1, std::min({wanted, clusters ? implicit::kClusterMax : kSplitsMax, a.slices / kSlicesMin}));
  if (a.splits > 1 && !clusters) {
    a.parts = static_cast<float*>(stream.scratch(size_t(a.splits) * size_t(a.pixels) * size_t(a.outputs) * 4));
    a.counters = static_cast<int*>(Context::of(stream).attention_workspace(size_t(tiles) * 4, native(stream)));
  }
  const auto kernel = implicit::convolve<kMultiply, kRows, kOutputs>;
  const dim3 grid(unsigned(ceil_div(a.outputs, kOutputs) * a.splits), unsigned(ceil_div(a.pixels, kRows)));
  tensor::cuda::check(allow_shared(kernel, Shape::kShared), "convolve");
  tensor::cuda::check(
      launch_kernel(kernel, grid, Shape::kThreads, Shape::kShared, native(stream), true, clusters ? a.splits : 1, a),
      "convolve");
}

template <class T, int kOutputs, template <class, class> class Loads>
void launch_wide(Arguments a, int slices, tensor::Stream& stream) {
  using Shape = implicit::WideTile<kOutputs>;
  a.slices = slices;
  a.splits = 1;
  launch_row_kernel("convolve_wide", implicit::convolve_wide<T, kOutputs, Loads>,
                    dim3(unsigned(ceil_div(a.outputs, kOutputs)), unsigned(ceil_div(a.pixels, Shape::kRows))),
                    Shape::kThreads, size_t(Shape::kShared), stream, a);
}

// By rows, or where there is a tile for every multiprocessor; false: not on this chip, or not these sizes.
template <class T>
bool launch_wide(const Arguments& a, bool by_rows, tensor::Stream& stream) {
  using implicit::RowLoads;
  using implicit::WideLoads;
  const bool narrow = a.outputs <= 64;
  if (by_rows) {
    narrow ? launch_wide<T, 64, RowLoads>(a, 4, stream) : launch_wide<T, 128, RowLoads>(a, 4, stream);
    return true;
  }
  const int tiles = ceil_div(a.pixels, 128) * ceil_div(a.outputs, narrow ? 64 : 128);
  if (compute_capability() != 90 || a.inputs % 64 != 0 || tiles < processor_count()) return false;
  const int slices = a.size * a.size * a.inputs / 64;
  narrow ? launch_wide<T, 64, WideLoads>(a, slices, stream) : launch_wide<T, 128, WideLoads>(a, slices, stream);
  return true;
}

template <Multiply kMultiply>
void launch(const Arguments& a, bool by_rows, tensor::Stream& stream) {
  if constexpr (kMultiply == Multiply::kF16 || kMultiply == Multiply::kBf16) {
    if (launch_wide<typename implicit::Element<kMultiply>::Type>(a, by_rows, stream)) return;
  }
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
  if (c.by_rows) {  // with the border
    a.height = int(args.x.shape[1]);
    a.width = int(args.x.shape[2]);
  }
  switch (c.numbers) {
    case DeviceNumbers::kFp32:
      return launch<Multiply::kTf32Thrice>(a, c.by_rows, stream);
    case DeviceNumbers::kTf32:
      return launch<Multiply::kTf32>(a, c.by_rows, stream);
    case DeviceNumbers::kBf16:
      return launch<Multiply::kBf16>(a, c.by_rows, stream);
    default:
      return launch<Multiply::kF16>(a, c.by_rows, stream);
  }
}

}  // namespace spillway::kernels::cuda
