#include "apps/bench/ceilings.h"

#include <algorithm>
#include <random>

#include "apps/bench/measure.h"
#include "kernels/linear.h"
#include "tensor/cuda/cuda.h"

namespace spillway::apps {
namespace {

using tensor::DType;
using tensor::Tensor;

constexpr int kRuns = 8;

// Seconds of the fastest of several runs, after one that warms up.
template <class Body>
double fastest(tensor::Stream& stream, Body&& body) {
  double best = 1e9;
  for (int run = 0; run <= kRuns; ++run) {
    tensor::StageLog log;
    stream.watch(&log);
    stream.stage("run");
    body();
    stream.stage("end");
    stream.watch(nullptr);
    stream.synchronize();
    if (run > 0) best = std::min(best, stream.durations(log)[0]);
  }
  return best;
}

double copy_rate(tensor::Stream& stream) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  const Tensor from(DType::kU8, {kBytes}, stream.device()), to(DType::kU8, {kBytes}, stream.device());
  stream.cuda().fill(from.view().data, 0x5a, size_t(kBytes));
  const double seconds = fastest(stream, [&] { stream.cuda().copy(to.view().data, from.view().data, size_t(kBytes)); });
  return 2.0 * double(kBytes) / seconds;
}

// Values in (-1, 1): products of zeros run faster than those of real data.
Tensor random_values(DType dtype, tensor::Shape shape) {
  Tensor values(dtype, shape);
  std::minstd_rand random(7);
  for (int64_t i = 0; i < values.shape().elements(); ++i) {
    const float value = float(random() % 20011) / 10005.5f - 1;
    if (dtype == DType::kF32) values.raw<float>()[i] = value;
    if (dtype == DType::kBF16) values.raw<uint16_t>()[i] = tensor::float_to_bf16(value);
    if (dtype == DType::kF16) values.raw<uint16_t>()[i] = tensor::float_to_f16(value);
  }
  return values;
}

Result<double> product_rate(tensor::Stream& stream, kernels::Precision precision, DType dtype, int64_t size) {
  const Tensor weight = random_values(dtype, {size, size});
  SW_ASSIGN(const kernels::PackedLinear packed,
            kernels::pack_linear(kernels::WeightSource{.weight = weight, .scales = {}}, precision, stream));
  const Tensor x = stream.place(random_values(dtype, {size, size}));
  const Tensor y(dtype, {size, size}, stream.device());
  const double seconds = fastest(stream, [&] { kernels::linear(x, packed, y, stream); });
  return 2.0 * double(size) * double(size) * double(size) / seconds;
}

}  // namespace

Result<Ceilings> measure_ceilings(tensor::Stream& stream) {
  Ceilings ceilings;
  if (stream.device().kind == tensor::DeviceKind::kCpu) {
    ceilings.bytes_per_s = memory_bandwidth(stream.threads());
    SW_ASSIGN(ceilings.flops_per_s, product_rate(stream, kernels::Precision::kFp32, DType::kF32, 1024));
    ceilings.what = "reads of 1 GiB; an fp32 product of 1,024 by 1,024 by 1,024";
    return ceilings;
  }
  ceilings.bytes_per_s = copy_rate(stream);
  SW_ASSIGN(ceilings.flops_per_s,
            product_rate(stream, kernels::Precision::kBf16, kernels::half_type(stream.device()), 8192));
  ceilings.what = "a copy of 2 GiB, read and written; a 16-bit product of 8,192 by 8,192 by 8,192 on random data";
  return ceilings;
}

}  // namespace spillway::apps
