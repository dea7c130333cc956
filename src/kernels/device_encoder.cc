#include "kernels/device_encoder.h"

#include <fmt/format.h>

#include "kernels/operations.h"
#include "tensor/cuda/cuda.h"

namespace spillway::kernels {
namespace {

const DeviceEncoderOperations& table(const tensor::Stream& stream) {
  return operations(stream.device()).device_encoder;
}

}  // namespace

tensor::DType activation_type(DeviceNumbers numbers) {
  switch (numbers) {
    case DeviceNumbers::kFp32:
    case DeviceNumbers::kTf32:
      return tensor::DType::kF32;
    case DeviceNumbers::kBf16:
      return tensor::DType::kBF16;
    default:
      return tensor::DType::kF16;
  }
}

Status check_device_numbers(DeviceNumbers numbers, tensor::Device device) {
  if (device.kind != tensor::DeviceKind::kCuda)
    return unsupported(fmt::format("these encoder kernels run on CUDA, not on {}", to_string(device)));
  const int found = tensor::cuda::device_info(device.index).capability();
  const int least = numbers == DeviceNumbers::kFp8 ? 89 : 80;
  if (found >= least) return {};
  return unsupported(fmt::format(
      "{} of encoders and vision models: expected compute capability {}.{} or later, found {}.{}",
      numbers == DeviceNumbers::kFp8 ? "precision fp8" : "CUDA", least / 10, least % 10, found / 10, found % 10));
}

DeviceScale make_device_scale(float value, tensor::Stream& stream) {
  DeviceScale scale;
  scale.on_device = tensor::Tensor(tensor::DType::kF32, {1}, stream.device());
  scale.value = value;
  stream.upload(scale.on_device.view().data, &scale.value, sizeof(float));
  return scale;
}

Result<DeviceLinear> pack_device_linear(std::span<const WeightSource> sources, tensor::TensorView bias,
                                        DeviceNumbers numbers, tensor::DType y_type, tensor::Stream& stream) {
  return table(stream).pack_device_linear(sources, bias, numbers, y_type, stream);
}

int device_product(const DeviceProductArgs& args, tensor::Stream& stream) {
  return table(stream).device_product(args, stream);
}

void device_norm(const DeviceNormArgs& args, tensor::Stream& stream) { table(stream).device_norm(args, stream); }

void device_activate(tensor::TensorView x, Activation activation, tensor::Stream& stream) {
  table(stream).device_activate(x, activation, stream);
}

void device_add_bias(tensor::TensorView x, tensor::TensorView bias, tensor::Stream& stream) {
  table(stream).device_add_bias(x, bias, stream);
}

void device_add(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) {
  table(stream).device_add(x, y, stream);
}

void device_gate(tensor::TensorView x, Activation activation, tensor::TensorView y, tensor::Stream& stream) {
  table(stream).device_gate(x, activation, y, stream);
}

void device_rope(tensor::TensorView x, int64_t stride, int heads, int head_dim, tensor::TensorView cos_sin,
                 tensor::TensorView position, tensor::Stream& stream) {
  table(stream).device_rope(x, stride, heads, head_dim, cos_sin, position, stream);
}

void device_attention(const DeviceAttentionArgs& args, tensor::Stream& stream) {
  table(stream).device_attention(args, stream);
}

void device_pool(tensor::TensorView x, tensor::TensorView offsets, Pooling pooling, tensor::TensorView y,
                 tensor::Stream& stream) {
  table(stream).device_pool(x, offsets, pooling, y, stream);
}

void device_normalize(tensor::TensorView x, tensor::Stream& stream) { table(stream).device_normalize(x, stream); }

void device_row_maxima(tensor::TensorView logits, tensor::TensorView sequence, tensor::TensorView best,
                       tensor::Stream& stream) {
  table(stream).device_row_maxima(logits, sequence, best, stream);
}

void device_log1p(tensor::TensorView x, tensor::Stream& stream) { table(stream).device_log1p(x, stream); }

void device_convert(tensor::TensorView x, tensor::TensorView y, tensor::Stream& stream) {
  table(stream).device_convert(x, y, stream);
}

}  // namespace spillway::kernels
