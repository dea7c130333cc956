// Which product kernel takes a call: by the weight's format, the number of rows and the chip.
#include "kernels/cuda/gemm_bf16.h"
#include "kernels/cuda/gemm_fp8.h"
#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/grouped_experts.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/quantize_weight.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::TensorView;

constexpr int64_t kOwnRowsMax = 256;     // above, the library's bf16 products are as fast
constexpr int64_t kSmallRowsBf16 = 8;    // of bf16 weights; above, the tensor cores' tiles fill
constexpr int64_t kOwnOutputsMin = 32768;  // of so many outputs the library is no faster
constexpr int64_t kOwnBiasRowsMax = 64;    // above, the library and a launch for the bias are faster than one launch

Weight weight_of(const PackedLinear& w) {
  Weight weight;
  weight.format = w.format == PackedFormat::kF8 ? WeightFormat::kF8Block : WeightFormat::kBf16;
  weight.n = int(w.n);
  weight.k = int(w.k);
  weight.data = w.data.view().data;
  weight.scales = w.scales.empty() ? nullptr : w.scales.view().data;
  return weight;
}

void run(cudaError_t error, const char* what) { tensor::cuda::check(error, what); }

// cuBLASLt over plain weights; y in activations or f32.
void library_product(TensorView x, const void* w, const PackedLinear& packed, TensorView y, bool accumulate,
                     tensor::Stream& stream) {
  Context& context = Context::of(stream);
  DenseProduct product;
  product.compute = x.dtype == DType::kF32   ? DenseCompute::kF32
                    : x.dtype == DType::kF16 ? DenseCompute::kF16
                                             : DenseCompute::kBf16;
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
  run(context.products().run(product, context.products_workspace(), LtProducts::kWorkspaceBytes, native(stream)),
      "cuBLASLt product");
}

// FP8 by quantised activations; the scratch holds them.
void fp8_product(TensorView x, const PackedLinear& w, TensorView y, Epilogue epilogue, tensor::Stream& stream) {
  const int64_t m = x.shape[0], stride = (m + 3) / 4 * 4;
  const size_t q_bytes = size_t((m * w.k + 255) / 256 * 256);
  auto* scratch = static_cast<std::byte*>(stream.scratch(q_bytes + size_t(w.k / 128 * stride) * sizeof(float)));
  QuantizeActivations quantize;
  quantize.m = int(m);
  quantize.k = int(w.k);
  quantize.x = x.data;
  quantize.x_type = scalar_of(x.dtype);
  quantize.x_stride = w.k;
  quantize.out = {scratch, reinterpret_cast<float*>(scratch + q_bytes), stride};
  run(launch_quantize_activations(quantize, native(stream)), "quantize_activations");
  Fp8Product product;
  product.m = int(m);
  product.x = quantize.out;
  product.weight = weight_of(w);
  product.epilogue = epilogue;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = w.n;
  run(launch_fp8_product(product, native(stream)), "fp8_product");
}

bool takes_small_batch(TensorView x, const PackedLinear& w) {
  const bool fp8 = w.format == PackedFormat::kF8;
  return x.dtype == DType::kBF16 && x.shape[0] <= (fp8 ? kSmallBatchRowsMax : kSmallRowsBf16) && w.k % (fp8 ? 16 : 8) == 0;
}

void small_batch(TensorView x, const PackedLinear& w, TensorView y, const float* bias, Epilogue epilogue,
                 tensor::Stream& stream) {
  SmallBatchProduct product;
  product.m = int(x.shape[0]);
  product.x = x.data;
  product.x_type = scalar_of(x.dtype);
  product.x_stride = w.k;
  product.weight = weight_of(w);
  product.bias = bias;
  product.epilogue = epilogue;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = y.shape[1];
  run(launch_small_batch(product, native(stream)), "small_batch");
}

bool takes_own_bf16(TensorView x, const PackedLinear& w, tensor::Stream& stream) {
  return Context::of(stream).capability() == 90 && w.format == PackedFormat::kBf16 && x.dtype == DType::kBF16 &&
         x.shape[0] <= kOwnRowsMax && w.k % 64 == 0 && w.n % 8 == 0;
}

void own_bf16(TensorView x, const PackedLinear& w, TensorView y, const float* bias, Epilogue epilogue,
              tensor::Stream& stream) {
  Bf16Product product;
  product.m = int(x.shape[0]);
  product.x = x.data;
  product.x_stride = w.k;
  product.weight = weight_of(w);
  product.bias = bias;
  product.epilogue = epilogue;
  product.y = y.data;
  product.y_type = scalar_of(y.dtype);
  product.y_stride = y.shape[1];
  run(launch_bf16_product(product, native(stream)), "bf16_product");
}

// Without bias, for any number of rows.
void plain_product(TensorView x, const PackedLinear& w, TensorView y, bool accumulate, tensor::Stream& stream) {
  if (w.format != PackedFormat::kF8) return library_product(x, w.data.view().data, w, y, accumulate, stream);
  if (Context::of(stream).capability() == 90 && w.k % 128 == 0 && w.n % 8 == 0) {
    return fp8_product(x, w, y, accumulate ? Epilogue::kAdd : Epilogue::kStore, stream);
  }
  void* wide = stream.scratch(size_t(w.n * w.k) * 2);
  run(launch_dequantize_weight(weight_of(w), wide, native(stream)), "dequantize_weight");
  library_product(x, wide, w, y, accumulate, stream);
}

}  // namespace

void linear(TensorView x, const PackedLinear& weight, TensorView y, tensor::Stream& stream,
            const LinearOptions& options) {
  if (x.shape[0] == 0) return;
  SW_CHECK(x.shape[1] == weight.k && y.shape[1] == weight.n, "x " + to_string(x.shape) + ", y " + to_string(y.shape));
  SW_CHECK(options.activation == Activation::kNone, "activations in products run on the CPU");
  const Epilogue epilogue = options.accumulate ? Epilogue::kAdd : Epilogue::kStore;
  const float* bias = options.bias.empty() ? nullptr : options.bias.as<float>();
  if (x.dtype != weight.data.dtype() && weight.format == PackedFormat::kF32) {
    // The router: float32 weights over rounded activations.
    const TensorView wide(stream.scratch(size_t(x.elements()) * sizeof(float)), DType::kF32, x.shape);
    widen_to_f32(x, wide, stream);
    return library_product(wide, weight.data.view().data, weight, y, options.accumulate, stream);
  }
  if (takes_small_batch(x, weight)) return small_batch(x, weight, y, bias, epilogue, stream);
  const bool own_gains = (bias != nullptr && x.shape[0] <= kOwnBiasRowsMax) || weight.n >= kOwnOutputsMin;
  if (own_gains && takes_own_bf16(x, weight, stream)) return own_bf16(x, weight, y, bias, epilogue, stream);
  plain_product(x, weight, y, options.accumulate, stream);
  if (bias != nullptr) add_bias(y, options.bias, stream);
}

void gated_linear(TensorView x, const PackedLinear& gate_up, TensorView work, TensorView y, tensor::Stream& stream) {
  if (x.shape[0] == 0) return;
  if (takes_small_batch(x, gate_up)) return small_batch(x, gate_up, y, nullptr, Epilogue::kSwiGlu, stream);
  if (takes_own_bf16(x, gate_up, stream) && gate_up.n % 16 == 0) {
    return own_bf16(x, gate_up, y, nullptr, Epilogue::kSwiGlu, stream);
  }
  plain_product(x, gate_up, work, false, stream);
  silu_mul(work, y, stream);
}

void product_by_head(const HeadProduct& args, tensor::Stream& stream) {
  Context& context = Context::of(stream);
  const HeadLinear& w = *args.weights;
  DenseProduct product;
  product.compute = args.dtype == DType::kF32   ? DenseCompute::kF32
                    : args.dtype == DType::kF16 ? DenseCompute::kF16
                                                : DenseCompute::kBf16;
  product.m = int(args.rows);
  product.n = int(w.n);
  product.k = int(w.k);
  product.x = args.x;
  product.x_stride = args.x_head * w.heads;
  product.x_batch = args.x_head;
  product.w = w.weights[0].data.view().data;
  product.w_batch = w.n * w.k;
  product.y = args.y;
  product.y_type = scalar_of(args.dtype);
  product.y_stride = args.y_head * w.heads;
  product.y_batch = args.y_head;
  product.batch = w.heads;
  run(context.products().run(product, context.products_workspace(), LtProducts::kWorkspaceBytes, native(stream)),
      "cuBLASLt product by head");
}

void expert_mlp(TensorView x, TensorView ids, TensorView weights, const PackedExperts& experts, TensorView y,
                tensor::Stream& stream) {
  const int tokens = int(ids.shape[0]), slots = int(ids.shape[1]);
  if (tokens == 0) return;
  const PackedLinear &gate_up = experts.weights[0].gate_up, &down = experts.weights[0].down;
  const int hidden = int(down.n), inter = int(down.k);
  if (gate_up.format == PackedFormat::kF32) {
    ExpertsF32 args;
    args.x = x.as<float>();
    args.ids = ids.as<int32_t>();
    args.weights = weights.as<float>();
    args.gate_up = gate_up.data.as<float>();
    args.down = down.data.as<float>();
    args.h = static_cast<float*>(stream.scratch(size_t(tokens) * size_t(slots) * size_t(inter) * sizeof(float)));
    args.y = y.as<float>();
    args.tokens = tokens;
    args.slots = slots;
    args.hidden = hidden;
    args.inter = inter;
    return experts_f32(args, stream);
  }
  ExpertsMlp mlp;
  mlp.tokens = tokens;
  mlp.slots = slots;
  mlp.experts = experts.count;
  mlp.hidden = hidden;
  mlp.inter = inter;
  mlp.x = x.data;
  mlp.x_type = scalar_of(x.dtype);
  mlp.x_stride = hidden;
  mlp.ids = ids.as<int32_t>();
  mlp.weights = weights.as<float>();
  mlp.gate_up = weight_of(gate_up);
  mlp.down = weight_of(down);
  mlp.y = y.data;
  mlp.y_type = scalar_of(y.dtype);
  mlp.y_stride = hidden;
  const size_t bytes = experts_workspace_bytes(mlp, tokens);
  run(launch_experts(mlp, stream.scratch(bytes), bytes, native(stream)), "experts");
}

}  // namespace spillway::kernels::cuda
