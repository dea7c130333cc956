// CUDA's operations of kernels/device_encoder.h and kernels/device_image.h, under the same names. Each launches on the
// stream and returns; errors of the driver are thrown (tensor/cuda/error.h).
#pragma once

#include "kernels/device_encoder.h"
#include "kernels/device_image.h"

namespace spillway::kernels::cuda {

Result<DeviceLinear> pack_device_linear(std::span<const WeightSource> sources, tensor::TensorView bias,
                                        DeviceNumbers numbers, tensor::DType y_type, tensor::Stream& stream);
decltype(kernels::device_product) device_product;
decltype(kernels::device_norm) device_norm;
decltype(kernels::device_activate) device_activate;
decltype(kernels::device_add_bias) device_add_bias;
decltype(kernels::device_add) device_add;
decltype(kernels::device_gate) device_gate;
decltype(kernels::device_rope) device_rope;
decltype(kernels::device_attention) device_attention;
decltype(kernels::device_pool) device_pool;
decltype(kernels::device_normalize) device_normalize;
decltype(kernels::device_row_maxima) device_row_maxima;
decltype(kernels::device_log1p) device_log1p;
decltype(kernels::device_convert) device_convert;

Result<DeviceConvolution> pack_device_convolution(tensor::TensorView weight, tensor::TensorView bias, Window window,
                                                  DeviceNumbers numbers, tensor::Stream& stream);
decltype(kernels::device_convolution) device_convolution;
decltype(kernels::device_affine) device_affine;
decltype(kernels::device_max_pool) device_max_pool;
decltype(kernels::device_pixels) device_pixels;

// Any window, by gathering patches (convolution_implicit.cu).
void convolve_implicitly(const DeviceConvolutionArgs& args, tensor::Stream& stream);

// parts bf16 [M, 6 K] of x f32 [M, K]: each value is the sum of high + middle + low, three bf16 that hold 24 bits.
// Along a row come low, middle, high, middle, high, high for inputs (weight false), and for weights what they are
// multiplied with: high, middle, low, high, middle, high. One product over 6 K then adds up all pairs down to 2^-24 of
// the largest, the small ones first.
void split_parts(tensor::TensorView x, bool weight, void* parts, tensor::Stream& stream);

// Half-precision and float32 attention (encoder_attention*.cu).
void attention_half(const DeviceAttentionArgs& args, tensor::Stream& stream);
void attention_f32(const DeviceAttentionArgs& args, tensor::Stream& stream);

}  // namespace spillway::kernels::cuda
