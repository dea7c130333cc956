#include "kernels/cuda/encoder_attention_f32.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

template <int kDim>
void launch(const sequence_f32::Arguments& args, bool exact, unsigned tiles, tensor::Stream& stream) {
  using namespace sequence_f32;
  const bool aligned = args.dim % 4 == 0 && args.stride % 4 == 0;
  const auto kernel = aligned ? (exact ? attend_f32<kDim, true, true> : attend_f32<kDim, false, true>)
                              : (exact ? attend_f32<kDim, true, false> : attend_f32<kDim, false, false>);
  launch_row_kernel("attend_f32", kernel, dim3(unsigned(args.heads), tiles * kParts<kDim>), kThreads, kShared<kDim>,
                    stream, args);
}

}  // namespace

void attention_f32(const DeviceAttentionArgs& args, tensor::Stream& stream) {
  constexpr float kLog2E = 1.4426950408889634f;
  sequence_f32::Arguments a = {};
  a.q = args.q.as<float>();
  a.k = args.k.as<float>();
  a.v = args.v.as<float>();
  a.tiles = args.tiles.raw<AttentionTile>();
  a.stride = args.row_stride;
  a.heads = args.heads;
  a.dim = args.head_dim;
  a.window = args.window;
  a.scale_log2 = args.scale * kLog2E;
  a.y = args.y.as<float>();
  const auto tiles = unsigned(args.tiles.shape[0]);
  SW_CHECK(a.dim % 2 == 0 && a.dim <= 128, "heads of an even width up to 128");
  if (a.dim <= 16) return launch<16>(a, args.exact, tiles, stream);
  if (a.dim <= 32) return launch<32>(a, args.exact, tiles, stream);
  if (a.dim <= 64) return launch<64>(a, args.exact, tiles, stream);
  launch<128>(a, args.exact, tiles, stream);
}

}  // namespace spillway::kernels::cuda
