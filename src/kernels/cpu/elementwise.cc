#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::DType;
using tensor::TensorView;

// Work below this many elements stays on the calling thread.
constexpr int64_t kGrainElements = 1 << 14;
int64_t grain(int64_t width) { return kGrainElements / std::max<int64_t>(width, 1) + 1; }

template <class Row>
void for_rows(tensor::Stream& stream, int64_t rows, int64_t width, Row row) {
  stream.parallel_for(rows, grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) row(t);
  });
}

void check_same(const TensorView& a, const TensorView& b) {
  SW_CHECK(a.elements() == b.elements(), to_string(a.shape) + " against " + to_string(b.shape));
}

}  // namespace

void rms_norm(TensorView x, TensorView weight, float eps, TensorView y, tensor::Stream& stream) {
  check_same(x, y);
  const int64_t width = weight.elements();
  SW_CHECK(x.shape[-1] == width, "norm weight " + to_string(weight.shape) + " for x " + to_string(x.shape));
  const float *in = x.as<float>(), *w = weight.as<float>();
  float* out = y.as<float>();
  for_rows(stream, x.elements() / width, width,
           [&](int64_t t) { kernel_table().rms_norm(in + t * width, w, eps, width, out + t * width); });
}

void rms_norm_slice(TensorView x, int64_t x_offset, TensorView weight, float eps, TensorView y,
                    tensor::Stream& stream) {
  const int64_t width = weight.elements();
  const int64_t stride = x.shape[-1];
  const int64_t rows = x.elements() / stride;
  SW_CHECK(x_offset >= 0 && x_offset + width <= stride && y.elements() == rows * width, "slice outside the rows");
  const float *in = x.as<float>() + x_offset, *w = weight.as<float>();
  float* out = y.as<float>();
  for_rows(stream, rows, width,
           [&](int64_t t) { kernel_table().rms_norm(in + t * stride, w, eps, width, out + t * width); });
}

void add_rms_norm(TensorView residual, TensorView x, TensorView weight, float eps, TensorView y,
                  tensor::Stream& stream) {
  check_same(residual, x);
  check_same(residual, y);
  const int64_t width = weight.elements();
  SW_CHECK(x.shape[-1] == width, "norm weight " + to_string(weight.shape) + " for x " + to_string(x.shape));
  const float *in = x.as<float>(), *w = weight.as<float>();
  float *sum = residual.as<float>(), *out = y.as<float>();
  for_rows(stream, x.elements() / width, width, [&](int64_t t) {
    kernel_table().add_rms_norm(sum + t * width, in + t * width, w, eps, width, out + t * width);
  });
}

void silu_mul(TensorView gate_up, TensorView y, tensor::Stream& stream) {
  const int64_t width = y.shape[-1];
  SW_CHECK(gate_up.shape[-1] == 2 * width && gate_up.elements() == 2 * y.elements(),
           "gate and up " + to_string(gate_up.shape) + " for y " + to_string(y.shape));
  const float* in = gate_up.as<float>();
  float* out = y.as<float>();
  for_rows(stream, y.elements() / width, width, [&](int64_t t) {
    kernel_table().silu_mul(in + 2 * t * width, in + (2 * t + 1) * width, width, out + t * width);
  });
}

void add(TensorView y, TensorView x, tensor::Stream& stream) {
  check_same(y, x);
  float* out = y.as<float>();
  const float* in = x.as<float>();
  stream.parallel_for(y.elements(), kGrainElements, [&](int64_t begin, int64_t end, int) {
    kernel_table().add(out + begin, in + begin, end - begin);
  });
}

void embedding(TensorView table, TensorView ids, TensorView y, tensor::Stream& stream) {
  const int64_t width = table.shape[-1];
  const int64_t vocabulary = table.shape[0];
  SW_CHECK(y.elements() == ids.elements() * width,
           "embedding of " + to_string(ids.shape) + " to " + to_string(y.shape));
  const DType dtype = table.dtype;
  SW_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16,
           "embedding table of " + std::string(tensor::name_of(dtype)));
  const auto size = static_cast<int64_t>(tensor::size_of(dtype));
  const int32_t* id = ids.as<int32_t>();
  float* out = y.as<float>();
  for_rows(stream, ids.elements(), width, [&](int64_t t) {
    SW_CHECK(id[t] >= 0 && id[t] < vocabulary, "token id outside the vocabulary: " + std::to_string(id[t]));
    const std::byte* row = table.data + id[t] * width * size;
    float* target = out + t * width;
    if (dtype == DType::kF32) {
      std::memcpy(target, row, static_cast<size_t>(width) * 4);
      return;
    }
    const auto* halves = reinterpret_cast<const uint16_t*>(row);
    for (int64_t i = 0; i < width; ++i) {
      target[i] = dtype == DType::kBF16 ? tensor::bf16_to_float(halves[i]) : tensor::f16_to_float(halves[i]);
    }
  });
}

void gather_rows(TensorView x, TensorView ids, TensorView y, tensor::Stream& stream) {
  const int64_t width = x.shape[-1];
  const int64_t rows = x.elements() / width;
  SW_CHECK(y.elements() == ids.elements() * width, "gather of " + to_string(ids.shape) + " to " + to_string(y.shape));
  const int32_t* id = ids.as<int32_t>();
  const float* in = x.as<float>();
  float* out = y.as<float>();
  for_rows(stream, ids.elements(), width, [&](int64_t t) {
    SW_CHECK(id[t] >= 0 && id[t] < rows, "row outside the tensor: " + std::to_string(id[t]));
    std::memcpy(out + t * width, in + id[t] * width, static_cast<size_t>(width) * 4);
  });
}

void copy_slice(TensorView x, int64_t x_offset, TensorView y, tensor::Stream& stream) {
  const int64_t width = y.shape[-1];
  const int64_t stride = x.shape[-1];
  SW_CHECK(x_offset >= 0 && x_offset + width <= stride && x.elements() / stride == y.elements() / width,
           "slice outside the rows");
  const float* in = x.as<float>() + x_offset;
  float* out = y.as<float>();
  for_rows(stream, y.elements() / width, width,
           [&](int64_t t) { std::memcpy(out + t * width, in + t * stride, static_cast<size_t>(width) * 4); });
}

}  // namespace spillway::kernels::cpu
