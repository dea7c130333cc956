#include <algorithm>

#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/encoder_attention.cuh"
#include "kernels/cuda/encoder_attention_wgmma.cuh"
#include "kernels/cuda/operations_encoder.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;

template <class T, int kDim>
void launch(const sequence::Arguments& args, unsigned tiles, tensor::Stream& stream) {
  const bool aligned = args.dim % 8 == 0 && args.stride % 8 == 0;
  constexpr size_t kShared = 5 * sequence::kKeys * kDim * 2;
  launch_row_kernel("attend_sequences",
                    aligned ? sequence::attend_sequences<T, kDim, true> : sequence::attend_sequences<T, kDim, false>,
                    dim3(unsigned(args.heads), tiles * sequence::kParts), sequence::kThreads, kShared, stream, args);
}

// On warpgroup products.
template <class T>
void launch_wide(const sequence::Arguments& args, const DeviceAttentionArgs& whole, tensor::Stream& stream) {
  CUtensorMap maps[3];
  const tensor::TensorView* parts[] = {&whole.q, &whole.k, &whole.v};
  for (int i = 0; i < 3; ++i) {
    RowsMap rows{parts[i]->data, parts[i]->dtype};
    rows.rows = parts[i]->shape[0];
    rows.columns = int64_t{args.heads} * args.dim;
    rows.row_stride = args.stride * 2;
    rows.outer_stride = rows.row_stride * rows.rows;
    SW_CHECK(make_rows_map(&maps[i], rows), "tensor maps for rows of a multiple of 16 bytes");
  }
  const int blocks = std::min(processor_count(), args.tile_count * args.heads);
  launch_row_kernel("attend_wide", sequence::attend_wide<T>, dim3(unsigned(blocks)), sequence::kWideThreads,
                    sequence::kWideShared, stream, args, maps[0], maps[1], maps[2]);
}

template <class T>
void launch_dim(const sequence::Arguments& args, const DeviceAttentionArgs& whole, tensor::Stream& stream) {
  SW_CHECK(args.dim % 2 == 0 && args.dim <= 128, "heads of an even width up to 128");
  const auto tiles = unsigned(args.tile_count);
  if (args.dim <= 16) return launch<T, 16>(args, tiles, stream);
  if (args.dim <= 32) return launch<T, 32>(args, tiles, stream);
  // Where the work does not fill the device, smaller blocks are done sooner: 3.8 against 4.7 us for 16 heads of 128.
  const bool fills = 2 * args.tile_count * args.heads > processor_count();
  if (args.dim == sequence::kWideDim && fills && compute_capability() == 90 && args.stride % 8 == 0)
    return launch_wide<T>(args, whole, stream);
  if (args.dim <= 64) return launch<T, 64>(args, tiles, stream);
  launch<T, 128>(args, tiles, stream);
}

}  // namespace

void attention_half(const DeviceAttentionArgs& args, tensor::Stream& stream) {
  constexpr float kLog2E = 1.4426950408889634f;
  sequence::Arguments a = {};
  a.q = args.q.data;
  a.k = args.k.data;
  a.v = args.v.data;
  a.tiles = args.tiles.raw<AttentionTile>();
  a.stride = args.row_stride;
  a.heads = args.heads;
  a.dim = args.head_dim;
  a.window = args.window;
  a.scale_log2 = args.scale * kLog2E;
  a.y = args.y.data;
  a.y_scale = args.y_scale == nullptr ? nullptr : args.y_scale->on_device.raw<float>();
  a.tile_count = int(args.tiles.shape[0]);
  if (args.q.dtype == DType::kF16) return launch_dim<__half>(a, args, stream);
  launch_dim<__nv_bfloat16>(a, args, stream);
}

void device_attention(const DeviceAttentionArgs& args, tensor::Stream& stream) {
  if (args.tiles.shape[0] == 0) return;
  args.q.dtype == DType::kF32 ? attention_f32(args, stream) : attention_half(args, stream);
}

}  // namespace spillway::kernels::cuda
