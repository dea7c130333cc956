// Convolutions of many pixels on warpgroup products (sm_90a), f16 and bf16, inputs a multiple of 64 channels. A block
// makes 128 pixels by kOutputs channels, a warpgroup half of the pixels: slices of 128 bytes along K, all of one place
// of the filter, pass through shared memory kStages deep by cp.async into the layout that products read (rows of 128
// bytes, swizzled), zeros where a patch leaves its image. While a slice is multiplied the next but two is asked for.
// What follows the sums is that of convolution_implicit.cuh.
#pragma once

#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/convolution_implicit.cuh"
#include "kernels/device_image.h"

namespace spillway::kernels::cuda::implicit {

template <int kOutputsIn>
struct WideTile {
  static constexpr int kRows = 128, kOutputs = kOutputsIn;
  static constexpr int kThreads = 256;
  static constexpr int kChunk = 8, kSlice = 64, kSliceBytes = 128;
  static constexpr int kStages = kOutputs == 128 ? 3 : 4;
  static constexpr int kStageBytes = (kRows + kOutputs) * kSliceBytes;
  static constexpr int kStagedRow = kOutputs + 4;  // floats
  static constexpr int kShared = 1024 + kStages * kStageBytes;
  static_assert(kRows * kStagedRow * 4 <= kStages * kStageBytes);
};

// Where a block is along K.
struct Tap {
  int row = 0, column = 0, channel = 0;
  __device__ __forceinline__ void next(const Arguments& a, int slice) {
    channel += slice;
    if (channel < a.inputs) return;
    channel = 0;
    if (++column == a.size) column = 0, ++row;
  }
};

template <class T, class Shape>
struct WideLoads {
  static constexpr int kLoadRows = Shape::kThreads / 8;
  static constexpr int kPatches = Shape::kRows / kLoadRows, kWeights = Shape::kOutputs / kLoadRows;
  const T* patch[kPatches];  // of the filter's first place; may lie outside of the image
  int top[kPatches], left[kPatches];
  const T* weights;
  int outputs_left, weight_row;
  uint32_t place;
  Tap tap;

  __device__ __forceinline__ WideLoads(const Arguments& a, int first_pixel, int first_output) {
    const int chunk = int(threadIdx.x % 8), row = int(threadIdx.x / 8), area = a.out_height * a.out_width;
#pragma unroll
    for (int i = 0; i < kPatches; ++i) {
      const int pixel = first_pixel + row + i * kLoadRows, inside = pixel % area;
      top[i] = pixel < a.pixels ? inside / a.out_width * a.stride - a.padding : -(1 << 20);
      left[i] = inside % a.out_width * a.stride - a.padding;
      patch[i] = static_cast<const T*>(a.x) +
                 ((int64_t(pixel / area) * a.height + (pixel < a.pixels ? top[i] : 0)) * a.width + left[i]) * a.inputs +
                 chunk * Shape::kChunk;
    }
    weight_row = a.size * a.size * a.inputs;
    weights = static_cast<const T*>(a.w) + int64_t(first_output + row) * weight_row + chunk * Shape::kChunk;
    outputs_left = a.outputs - first_output - row;
    place = uint32_t(row * Shape::kSliceBytes + ((chunk ^ (row & 7)) << 4));
  }

  // The next slice, to a stage at `to`.
  __device__ __forceinline__ void load(const Arguments& a, uint32_t to) {
    const int64_t offset = (int64_t(tap.row) * a.width + tap.column) * a.inputs + tap.channel;
#pragma unroll
    for (int i = 0; i < kPatches; ++i) {
      const bool valid =
          unsigned(top[i] + tap.row) < unsigned(a.height) && unsigned(left[i] + tap.column) < unsigned(a.width);
      sequence::copy_16(to + place + i * kLoadRows * Shape::kSliceBytes, valid ? patch[i] + offset : a.x, valid);
    }
#pragma unroll
    for (int i = 0; i < kWeights; ++i) {
      const bool valid = i * kLoadRows < outputs_left;
      sequence::copy_16(to + Shape::kRows * Shape::kSliceBytes + place + i * kLoadRows * Shape::kSliceBytes,
                        valid ? weights + int64_t(i) * kLoadRows * weight_row : a.w, valid);
    }
    weights += Shape::kSlice;
    tap.next(a, Shape::kSlice);
  }
};

// Of a stem by rows (device_image.h): a slice is two rows of a window, 8 pixels of 4 channels each.
template <class T, class Shape>
struct RowLoads {
  static constexpr int kLoadRows = Shape::kThreads / 8;
  static constexpr int kPatches = Shape::kRows / kLoadRows, kWeights = Shape::kOutputs / kLoadRows;
  static constexpr int kWeightRow = 8 * 8 * kRowChannels;
  const T* patch[kPatches];
  const T* weights;
  int pixels_left, outputs_left;
  uint32_t place;

  // height and width are those with the border.
  __device__ __forceinline__ RowLoads(const Arguments& a, int first_pixel, int first_output) {
    const int chunk = int(threadIdx.x % 8), row = int(threadIdx.x / 8), area = a.out_height * a.out_width;
    pixels_left = a.pixels - first_pixel - row;
#pragma unroll
    for (int i = 0; i < kPatches; ++i) {
      const int pixel = first_pixel + row + i * kLoadRows, inside = pixel % area;
      const int64_t y = int64_t(pixel / area) * a.height + 2 * (inside / a.out_width) + chunk / 4;
      patch[i] = static_cast<const T*>(a.x) + (y * a.width + 2 * (inside % a.out_width)) * kRowChannels + chunk % 4 * 8;
    }
    weights = static_cast<const T*>(a.w) + int64_t(first_output + row) * kWeightRow + chunk * Shape::kChunk;
    outputs_left = a.outputs - first_output - row;
    place = uint32_t(row * Shape::kSliceBytes + ((chunk ^ (row & 7)) << 4));
  }

  __device__ __forceinline__ void load(const Arguments& a, uint32_t to) {
#pragma unroll
    for (int i = 0; i < kPatches; ++i) {
      const bool valid = i * kLoadRows < pixels_left;
      sequence::copy_16(to + place + i * kLoadRows * Shape::kSliceBytes, valid ? patch[i] : a.x, valid);
      patch[i] += 2 * a.width * kRowChannels;
    }
#pragma unroll
    for (int i = 0; i < kWeights; ++i) {
      const bool valid = i * kLoadRows < outputs_left;
      sequence::copy_16(to + Shape::kRows * Shape::kSliceBytes + place + i * kLoadRows * Shape::kSliceBytes,
                        valid ? weights + i * kLoadRows * kWeightRow : a.w, valid);
    }
    weights += Shape::kSlice;
  }
};

template <class T, int kOutputs>
__device__ __forceinline__ void multiply_wide(float (&sums)[kOutputs / 2], uint32_t patches, uint32_t weights,
                                              bool add) {
  products_begin();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const uint64_t x = inner_descriptor(patches) + uint64_t(2 * k), w = inner_descriptor(weights) + uint64_t(2 * k);
    if constexpr (kOutputs == 128) {
      product_n128<T>(sums, x, w, add || k > 0);
    } else {
      product_n64<T>(sums, x, w, add || k > 0);
    }
  }
  products_commit();
}

template <class T, int kOutputs, template <class, class> class Loads>
__global__ void __launch_bounds__(256, 2) convolve_wide(Arguments a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Shape = WideTile<kOutputs>;
  extern __shared__ char shared[];
  const uint32_t own = uint32_t(__cvta_generic_to_shared(shared)), base = (own + 1023) & ~1023u;
  const int first_output = int(blockIdx.x) * kOutputs, first_pixel = int(blockIdx.y) * Shape::kRows;
  const int group = int(threadIdx.x / 128), warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  Loads<T, Shape> loads(a, first_pixel, first_output);
  take_turn();
#pragma unroll
  for (int stage = 0; stage < Shape::kStages - 1; ++stage) {
    if (stage < a.slices) loads.load(a, base + uint32_t(stage * Shape::kStageBytes));
    sequence::commit_copies();
  }
  float sums[kOutputs / 2] = {};
  int stage = 0, free_stage = Shape::kStages - 1;
  for (int slice = 0; slice < a.slices; ++slice) {
    sequence::wait_copies<Shape::kStages - 2>();
    publish_shared();
    products_wait<0>();  // of the slice before, whose stage is filled again below
    hold(sums);
    __syncthreads();
    const uint32_t patches = base + uint32_t(stage * Shape::kStageBytes);
    multiply_wide<T, kOutputs>(sums, patches + uint32_t(group) * 64 * Shape::kSliceBytes,
                               patches + Shape::kRows * Shape::kSliceBytes, slice > 0);
    if (slice + Shape::kStages - 1 < a.slices) loads.load(a, base + uint32_t(free_stage * Shape::kStageBytes));
    sequence::commit_copies();
    if (++stage == Shape::kStages) stage = 0;
    if (++free_stage == Shape::kStages) free_stage = 0;
  }
  products_wait<0>();
  hold(sums);
  sequence::wait_copies<0>();
  __syncthreads();
  auto* staged = reinterpret_cast<float*>(shared + (base - own));
#pragma unroll
  for (int n = 0; n < kOutputs / 8; ++n) {
    float* to = staged + (warp * 16 + lane / 4) * Shape::kStagedRow + n * 8 + lane % 4 * 2;
    *reinterpret_cast<float2*>(to) = make_float2(sums[4 * n], sums[4 * n + 1]);
    *reinterpret_cast<float2*>(to + 8 * Shape::kStagedRow) = make_float2(sums[4 * n + 2], sums[4 * n + 3]);
  }
  __syncthreads();
  finish<T, Shape>(a, staged, first_pixel, first_output);
#endif
}

}  // namespace spillway::kernels::cuda::implicit
