#include "kernels/cuda/product_calls.h"

#include <algorithm>

#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_bf16_prefill.h"
#include "kernels/cuda/gemm_bf16_split.h"
#include "kernels/cuda/gemm_bf16_wide.h"
#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/layers.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::TensorView;

constexpr int64_t kLibraryFp8Rows = 256;  // below, the library's block-scaled products are not faster
// From so many rows on gemm_fp8 is, where it stores bf16 and K is below.
constexpr int64_t kPromptFp8Rows = 4096, kPromptFp8K = 16384, kShortFp8Rows = 1024, kShortFp8K = 2048;
// Measured beside gemv_small_batch and gemm_fp8 (NOTES-products.md): so much weight hides what a launch more costs. One
// and two rows stay where activations have 16 bits, which is faster.
constexpr int64_t kFewRowsWeight = 30'000'000;
constexpr int64_t kFewRowsMin = 3, kFewRowsMax = 8;
constexpr int kWideOutputs = 32768;  // of the weight: a tile of gemm_bf16_wide for nearly every multiprocessor
constexpr int64_t kFixedRows = 16;   // of a library product whose bits may not depend on the batch

void run(cudaError_t error, const char* what) { tensor::cuda::check(error, what); }

DenseCompute compute_of(DType dtype, Precision precision) {
  if (dtype == DType::kF32) return precision == Precision::kTf32 ? DenseCompute::kTf32 : DenseCompute::kF32;
  return dtype == DType::kF16 ? DenseCompute::kF16 : DenseCompute::kBf16;
}

cudaError_t run_library(const DenseProduct& product, tensor::Stream& stream) {
  Context& context = Context::of(stream);
  return context.products().run(product, context.products_workspace(), LtProducts::kWorkspaceBytes, native(stream));
}

// Blocks of kFixedRows rows, the last one filled up in a workspace: one shape, so one kernel and one order of sums.
void fixed_shape_product(DenseProduct product, size_t x_size, tensor::Stream& stream) {
  const size_t y_size = size_t(scalar_bytes(product.y_type));
  const size_t x_row = size_t(product.k) * x_size, y_row = size_t(product.n) * y_size;
  const int rows = product.m;
  auto* x = static_cast<const std::byte*>(product.x);
  auto* y = static_cast<std::byte*>(product.y);
  product.m = int(kFixedRows);
  const int64_t whole = rows / kFixedRows * kFixedRows, rest = rows - whole;
  for (int64_t at = 0; at < whole; at += kFixedRows) {
    product.x = x + size_t(at) * x_row;
    product.y = y + size_t(at) * y_row;
    run(run_library(product, stream), "cuBLASLt product");
  }
  if (rest == 0) return;
  const size_t x_bytes = size_t(kFixedRows) * x_row, aligned = (x_bytes + 255) / 256 * 256;
  auto* scratch = static_cast<std::byte*>(Context::of(stream).rows_workspace(aligned + size_t(kFixedRows) * y_row));
  const auto copy = [&](void* to, const void* from, size_t bytes) {
    run(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(stream)), "copy of rows");
  };
  run(cudaMemsetAsync(scratch, 0, aligned + size_t(kFixedRows) * y_row, native(stream)), "rows of zeros");
  copy(scratch, x + size_t(whole) * x_row, size_t(rest) * x_row);
  if (product.accumulate) copy(scratch + aligned, y + size_t(whole) * y_row, size_t(rest) * y_row);
  product.x = scratch;
  product.y = scratch + aligned;
  run(run_library(product, stream), "cuBLASLt product");
  copy(y + size_t(whole) * y_row, scratch + aligned, size_t(rest) * y_row);
}

// Measured beside gemm_fp8 (NOTES-products.md). plain: the product is stored in bf16, not added.
bool takes_library_fp8(int64_t m, const PackedLinear& w, bool plain, tensor::Stream& stream) {
  const bool own_faster =
      plain && ((m >= kPromptFp8Rows && w.k < kPromptFp8K) || (m >= kShortFp8Rows && w.k < kShortFp8K));
  return m >= kLibraryFp8Rows && m % 4 == 0 && w.k % 512 == 0 && w.n % 16 == 0 && !own_faster &&
         !stream.batch_invariant();
}

// What Bf16Product and Bf16PromptProduct have in common.
template <typename Product>
Product bf16_of(TensorView x, const PackedLinear& w, TensorView y, Epilogue epilogue) {
  Product product;
  product.m = int(x.shape[0]);
  product.x = x.data;
  product.x_stride = w.k;
  product.weight = weight_of(w);
  product.epilogue = epilogue;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = y.shape[1];
  return product;
}

}  // namespace

bool takes_few_rows_fp8(const PackedLinear& w, int64_t rows, tensor::Stream& stream) {
  return w.format == PackedFormat::kF8 && rows >= kFewRowsMin && rows <= kFewRowsMax && w.k % 128 == 0 &&
         w.n % 8 == 0 && w.n * w.k >= kFewRowsWeight && Context::of(stream).capability() == 90 &&
         !stream.batch_invariant();
}

void tune(const Tuning& tuning, tensor::Stream& stream) {
  LtProducts& products = Context::of(stream).products();
  products.measure(tuning.measure);
  products.remember(tuning.known);
}

std::string learned(tensor::Stream& stream) { return Context::of(stream).products().learned(); }

Weight weight_of(const PackedLinear& w) {
  Weight weight;
  weight.format = w.format == PackedFormat::kF8     ? WeightFormat::kF8Block
                  : w.format == PackedFormat::kInt8 ? WeightFormat::kInt8
                  : w.format == PackedFormat::kInt4 ? WeightFormat::kInt4
                                                    : WeightFormat::kBf16;
  weight.n = int(w.n);
  weight.k = int(w.k);
  weight.data = w.data.view().data;
  weight.scales = w.scales.empty() ? nullptr : w.scales.view().data;
  return weight;
}

void library_product(TensorView x, const void* w, const PackedLinear& packed, TensorView y, bool accumulate,
                     tensor::Stream& stream) {
  DenseProduct product;
  product.compute = compute_of(x.dtype, packed.precision);
  product.m = int(x.shape[0]);
  product.n = int(packed.n);
  product.k = int(packed.k);
  product.x = x.data;
  product.x_stride = packed.k;
  product.w = w;
  product.accumulate = accumulate;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = packed.n;
  if (stream.batch_invariant()) return fixed_shape_product(product, tensor::size_of(x.dtype), stream);
  run(run_library(product, stream), "cuBLASLt product");
}

void fp8_product(TensorView x, const InputNorm& norm, bool gates, const PackedLinear& w, TensorView y, bool accumulate,
                 tensor::Stream& stream) {
  const int64_t m = x.shape[0], stride = (m + 3) / 4 * 4;
  const size_t q_bytes = size_t((m * w.k + 255) / 256 * 256);
  const size_t scale_bytes = (size_t(w.k / 128 * stride) * sizeof(float) + 255) / 256 * 256;
  const bool few = takes_few_rows_fp8(w, m, stream);
  auto* scratch = static_cast<std::byte*>(
      stream.scratch(q_bytes + scale_bytes + (few ? few_rows_workspace_bytes(kFewTokensMax) : 0)));
  QuantizeActivations quantize;
  quantize.m = int(m);
  quantize.k = int(w.k);
  quantize.x = x.data;
  quantize.x_type = scalar_of(x.dtype);
  quantize.x_stride = x.shape[1];
  if (gates) quantize.source = QuantizeSource::kSwiGlu;
  if (!norm.empty()) {
    quantize.source = QuantizeSource::kRmsNorm;
    quantize.norm_weight = norm.weight.data;
    quantize.norm_type = Scalar::kF32;
    quantize.norm_eps = norm.epsilon;
  }
  quantize.out = {scratch, reinterpret_cast<float*>(scratch + q_bytes), stride};
  quantize.starts_next = few;
  run(launch_quantize_activations(quantize, native(stream)), "quantize_activations");
  if (few) {
    Fp8FewRowsProduct product = dense_few_rows(int(m), quantize.out, weight_of(w));
    product.y = y.data, product.y_type = scalar_of(y.dtype), product.y_stride = w.n, product.add = accumulate;
    product.workspace = scratch + q_bytes + scale_bytes;
    product.counters = Context::of(stream).expert_counters(native(stream));
    return run(launch_fp8_few_rows(product, native(stream)), "fp8 product of few rows");
  }
  if (takes_library_fp8(m, w, !accumulate && y.dtype == DType::kBF16, stream)) {
    DenseProduct product;
    product.compute = DenseCompute::kFp8;
    product.m = int(m);
    product.n = int(w.n);
    product.k = int(w.k);
    product.x = scratch;
    product.x_stride = w.k;
    product.x_scales = quantize.out.scales;
    product.w = w.data.view().data;
    product.w_scales = w.scales.as<float>();
    product.accumulate = accumulate;
    product.y = y.data;
    product.y_type = scalar_of(y.dtype);
    product.y_stride = w.n;
    const cudaError_t error = run_library(product, stream);
    if (error != cudaErrorNotSupported) return run(error, "cuBLASLt FP8 product");
  }
  Fp8Product product;
  product.m = int(m);
  product.x = quantize.out;
  product.weight = weight_of(w);
  product.epilogue = accumulate ? Epilogue::kAdd : Epilogue::kStore;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = w.n;
  if (stream.batch_invariant()) product.split = 1;
  run(launch_fp8_product(product, native(stream)), "fp8_product");
}

void small_batch(TensorView x, const InputNorm& norm, const PackedLinear& w, TensorView y, const float* bias,
                 Epilogue epilogue, tensor::Stream& stream) {
  SmallBatchProduct product;
  product.x_type = scalar_of(x.dtype);
  product.x_stride = w.k;
  if (!norm.empty()) {
    product.norm_weight = norm.weight.data;
    product.norm_type = Scalar::kF32;
    product.norm_eps = norm.epsilon;
  }
  product.weight = weight_of(w);
  product.bias = bias;
  product.epilogue = epilogue;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = y.shape[1];
  product.same_bits = stream.batch_invariant();
  for (int64_t at = 0; at < x.shape[0]; at += kSmallBatchRowsMax) {
    product.m = int(std::min<int64_t>(kSmallBatchRowsMax, x.shape[0] - at));
    product.x = x.data + size_t(at * w.k) * tensor::size_of(x.dtype);
    product.y = y.data + size_t(at * y.shape[1]) * tensor::size_of(y.dtype);
    run(launch_small_batch(product, native(stream)), "small_batch");
  }
}

void own_bf16(TensorView x, const PackedLinear& w, TensorView y, const float* bias, Epilogue epilogue,
              tensor::Stream& stream) {
  auto product = bf16_of<Bf16Product>(x, w, y, epilogue);
  product.bias = bias;
  const bool wide = !stream.batch_invariant() && product.weight.n >= kWideOutputs && bf16_wide_takes(product);
  run(wide ? launch_bf16_wide_product(product, native(stream)) : launch_bf16_product(product, native(stream)),
      "bf16_product");
}

void split_bf16(TensorView x, const PackedLinear& w, TensorView y, Epilogue epilogue, tensor::Stream& stream) {
  run(launch_bf16_split_product(bf16_of<Bf16Product>(x, w, y, epilogue), native(stream)), "bf16_split_product");
}

void prompt_bf16(TensorView x, const PackedLinear& w, TensorView y, Epilogue epilogue, tensor::Stream& stream) {
  const auto product = bf16_of<Bf16PromptProduct>(x, w, y, epilogue);
  run(launch_bf16_prompt_product(product, native(stream)), "bf16_prompt_product");
}

}  // namespace spillway::kernels::cuda
