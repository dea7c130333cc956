// Which product kernel takes a call: by the weight's format, the number of rows and the chip.
#include "kernels/cuda/products.h"

#include <algorithm>

#include "kernels/cuda/gemv_small_batch.h"
#include "kernels/cuda/grouped_experts.h"
#include "kernels/cuda/head_product.h"
#include "kernels/cuda/layers.h"
#include "kernels/cuda/product_calls.h"
#include "kernels/cuda/quantize_weight.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {
namespace {

using tensor::DType;
using tensor::TensorView;

constexpr int64_t kOwnRowsMax = 256;  // above, the library's bf16 products are as fast
constexpr int64_t kSmallRowsFp8 = 8;
constexpr int64_t kSmallRowsBf16 = 8;         // of bf16 weights; above, the tensor cores' tiles fill
constexpr int64_t kSmallRowsIntegers = 32;    // above, widening to bf16 first costs less than in the product
constexpr int64_t kOwnOutputsMin = 32768;     // of so many outputs the library is no faster
constexpr int64_t kSplitWeightMin = 8 << 20;  // elements; of less, the library's short products are as fast
constexpr int64_t kSplitRows = 32;            // above, the library is as fast in a step
constexpr int64_t kInsideNormRows = 4;        // a norm inside the product: every block norms all rows
constexpr size_t kInsideNormBytes = 64 << 10;
constexpr int64_t kQuantizedNormMax = 16384;  // K of a norm that quantises

void run(cudaError_t error, const char* what) { tensor::cuda::check(error, what); }

bool takes_fp8(const PackedLinear& w, tensor::Stream& stream) {
  return w.format == PackedFormat::kF8 && Context::of(stream).capability() == 90 && w.k % 128 == 0 && w.n % 8 == 0;
}

// More where there is no other product of FP8 weights.
int64_t small_rows_fp8(const PackedLinear& w, tensor::Stream& stream) {
  return takes_fp8(w, stream) ? kSmallRowsFp8 : kSmallBatchRowsMax;
}

// One decision for all row counts where bits may not depend on the batch: the kernels that give a row the same bits
// for any number of rows (NOTES-products.md).
bool takes_small_batch(const PackedLinear& w, int64_t rows, tensor::Stream& stream) {
  switch (w.format) {
    case PackedFormat::kInt8:
    case PackedFormat::kInt4:
      return rows <= kSmallRowsIntegers || stream.batch_invariant();
    case PackedFormat::kF8:
      return rows <= small_rows_fp8(w, stream) && w.k % 16 == 0 && !stream.batch_invariant() &&
             !takes_few_rows_fp8(w, rows, stream);
    case PackedFormat::kBf16:
      return rows <= kSmallRowsBf16 && w.k % 8 == 0 && !stream.batch_invariant();
    default:
      return false;
  }
}

bool takes_own_bf16(TensorView x, const PackedLinear& w, tensor::Stream& stream) {
  return Context::of(stream).capability() == 90 && w.format == PackedFormat::kBf16 && x.dtype == DType::kBF16 &&
         (x.shape[0] <= kOwnRowsMax || stream.batch_invariant()) && w.k % 64 == 0 && w.n % 8 == 0;
}

}  // namespace

bool takes_split_bf16(TensorView x, const PackedLinear& w, tensor::Stream& stream) {
  const int64_t rows = x.shape[0];
  return takes_own_bf16(x, w, stream) && !stream.batch_invariant() && rows > kSmallRowsBf16 && rows <= kSplitRows &&
         w.n < kOwnOutputsMin && w.n * w.k >= kSplitWeightMin;
}

namespace {

// Of gate and up with their SwiGLU; the library's products without it are no faster.
bool takes_prompt_bf16(TensorView x, const PackedLinear& w, tensor::Stream& stream) {
  return Context::of(stream).capability() == 90 && w.format == PackedFormat::kBf16 && x.dtype == DType::kBF16 &&
         x.shape[0] > kOwnRowsMax && !stream.batch_invariant() && w.k % 64 == 0 && w.n % 16 == 0;
}

// Without bias, for any number of rows. norm: of an FP8 product, which quantises what it norms.
void plain_product(TensorView x, const InputNorm& norm, const PackedLinear& w, TensorView y, bool accumulate,
                   tensor::Stream& stream) {
  const bool widens =
      w.format == PackedFormat::kF8 || w.format == PackedFormat::kInt8 || w.format == PackedFormat::kInt4;
  if (!widens) return library_product(x, w.data.view().data, w, y, accumulate, stream);
  if (takes_fp8(w, stream)) return fp8_product(x, norm, false, w, y, accumulate, stream);
  void* wide = stream.scratch(size_t(w.n * w.k) * 2);
  run(launch_dequantize_weight(weight_of(w), wide, native(stream)), "dequantize_weight");
  library_product(x, wide, w, y, accumulate, stream);
}

// The rows that a product reads: normed before it where it does not do so itself.
struct Input {
  TensorView x;
  InputNorm inside;
};

Input norm_input(TensorView x, const InputNorm& norm, const PackedLinear& weight, tensor::Stream& stream) {
  if (norm.empty()) return {x, {}};
  const int64_t rows = x.shape[0];
  if (norm.normed.dtype == DType::kBF16 && takes_small_batch(weight, rows, stream) && rows <= kInsideNormRows &&
      size_t(rows * weight.k) * 2 <= kInsideNormBytes && !stream.batch_invariant()) {
    return {x, norm};
  }
  if (norm.normed.dtype == DType::kBF16 && !takes_small_batch(weight, rows, stream) && takes_fp8(weight, stream) &&
      weight.k <= kQuantizedNormMax) {
    return {x, norm};
  }
  norm_slices({.x = x.data,
               .x_type = x.dtype,
               .x_stride = weight.k,
               .weight = norm.weight.as<float>(),
               .eps = norm.epsilon,
               .y = norm.normed.data,
               .y_type = norm.normed.dtype,
               .y_stride = weight.k,
               .rows = rows,
               .width = weight.k,
               .starts_next = takes_own_bf16(norm.normed, weight, stream) && !takes_small_batch(weight, rows, stream)},
              stream);
  return {norm.normed, {}};
}

}  // namespace

void linear(TensorView x, const PackedLinear& weight, TensorView y, tensor::Stream& stream,
            const LinearOptions& options) {
  if (x.shape[0] == 0) return;
  SW_CHECK(x.shape[1] == (options.gates ? 2 : 1) * weight.k && y.shape[1] == weight.n,
           "x " + to_string(x.shape) + ", y " + to_string(y.shape));
  SW_CHECK(options.activation == Activation::kNone, "activations in products run on the CPU");
  if (options.gates) {
    SW_CHECK(options.norm.empty() && options.bias.empty(), "gates with a norm or a bias");
    return fp8_product(x, {}, true, weight, y, options.accumulate, stream);
  }
  const Input input = norm_input(x, options.norm, weight, stream);
  x = input.x;
  const Epilogue epilogue = options.accumulate ? Epilogue::kAdd : Epilogue::kStore;
  const float* bias = options.bias.empty() ? nullptr : options.bias.as<float>();
  if (x.dtype != weight.data.dtype() && weight.format == PackedFormat::kF32) {
    // The router: float32 weights over rounded activations.
    const TensorView wide(stream.scratch(size_t(x.elements()) * sizeof(float)), DType::kF32, x.shape);
    widen_to_f32(x, wide, stream);
    return library_product(wide, weight.data.view().data, weight, y, options.accumulate, stream);
  }
  if ((x.dtype == DType::kBF16 || !input.inside.empty()) && takes_small_batch(weight, x.shape[0], stream)) {
    return small_batch(x, input.inside, weight, y, bias, epilogue, stream);
  }
  const bool own_gains = weight.n >= kOwnOutputsMin || stream.batch_invariant();
  if (own_gains && takes_own_bf16(x, weight, stream)) return own_bf16(x, weight, y, bias, epilogue, stream);
  if (takes_split_bf16(x, weight, stream)) {
    split_bf16(x, weight, y, epilogue, stream);
  } else {
    plain_product(x, input.inside, weight, y, options.accumulate, stream);
  }
  if (bias != nullptr) add_bias(y, options.bias, stream);
}

bool takes_gates(const PackedLinear& gate_up, const PackedLinear& down, int64_t rows, tensor::Stream& stream) {
  const auto quantises = [&](const PackedLinear& w) {
    return takes_fp8(w, stream) && !takes_small_batch(w, rows, stream);
  };
  return quantises(gate_up) && quantises(down);
}

void gated_linear(TensorView x, const PackedLinear& gate_up, TensorView work, TensorView y, tensor::Stream& stream,
                  const InputNorm& norm) {
  if (x.shape[0] == 0) return;
  const Input input = norm_input(x, norm, gate_up, stream);
  x = input.x;
  if ((x.dtype == DType::kBF16 || !input.inside.empty()) && takes_small_batch(gate_up, x.shape[0], stream)) {
    return small_batch(x, input.inside, gate_up, y, nullptr, Epilogue::kSwiGlu, stream);
  }
  if (takes_own_bf16(x, gate_up, stream) && gate_up.n % 16 == 0) {
    return own_bf16(x, gate_up, y, nullptr, Epilogue::kSwiGlu, stream);
  }
  if (takes_prompt_bf16(x, gate_up, stream)) return prompt_bf16(x, gate_up, y, Epilogue::kSwiGlu, stream);
  plain_product(x, input.inside, gate_up, work, false, stream);
  silu_mul(work, y, stream);
}

void product_by_head(const HeadProduct& args, tensor::Stream& stream) {
  const HeadLinear& w = *args.weights;
  const HeadRowsProduct few{
      int(args.rows), w.heads,    int(w.n), int(w.k), args.x, args.x_head, w.weights[0].data.view().data,
      args.y,         args.y_head};
  if (args.dtype == DType::kBF16 && stream.batch_invariant() && head_product_takes(few)) {
    return run(launch_head_product(few, native(stream)), "head_product");
  }
  Context& context = Context::of(stream);
  DenseProduct product;
  product.compute = args.dtype == DType::kF16                    ? DenseCompute::kF16
                    : args.dtype == DType::kBF16                 ? DenseCompute::kBf16
                    : w.weights[0].precision == Precision::kTf32 ? DenseCompute::kTf32
                                                                 : DenseCompute::kF32;
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
  const int64_t launches = stream.batch_invariant() ? args.rows : 1, size = int64_t(tensor::size_of(args.dtype));
  if (launches > 1) product.m = 1;
  for (int64_t i = 0; i < launches; ++i) {
    product.x = static_cast<const std::byte*>(args.x) + i * product.x_stride * size;
    product.y = static_cast<std::byte*>(args.y) + i * product.y_stride * size;
    run(context.products().run(product, context.products_workspace(), LtProducts::kWorkspaceBytes, native(stream)),
        "cuBLASLt product by head");
  }
}

namespace {

ExpertsMlp experts_of(TensorView x, TensorView ids, TensorView weights, const PackedExperts& experts, TensorView y) {
  const PackedLinear &gate_up = experts.weights[0].gate_up, &down = experts.weights[0].down;
  ExpertsMlp mlp;
  mlp.tokens = int(ids.shape[0]);
  mlp.slots = int(ids.shape[1]);
  mlp.experts = experts.count;
  mlp.hidden = int(down.n);
  mlp.inter = int(down.k);
  mlp.x = x.data;
  mlp.x_type = scalar_of(x.dtype);
  mlp.x_stride = down.n;
  mlp.ids = ids.as<int32_t>();
  mlp.weights = weights.as<float>();
  mlp.gate_up = weight_of(gate_up);
  mlp.down = weight_of(down);
  mlp.y = y.data;
  mlp.y_type = scalar_of(y.dtype);
  mlp.y_stride = down.n;
  return mlp;
}

void run_experts(ExpertsMlp mlp, tensor::Stream& stream) {
  mlp.counters = Context::of(stream).expert_counters(native(stream));
  const size_t bytes = experts_workspace_bytes(mlp, mlp.tokens);
  run(launch_experts(mlp, stream.scratch(bytes), bytes, native(stream)), "experts");
}

}  // namespace

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
  ExpertsMlp mlp = experts_of(x, ids, weights, experts, y);
  if (stream.batch_invariant() && experts_groupable(mlp)) mlp.way = ExpertsWay::kGrouped;
  run_experts(mlp, stream);
}

// Few tokens only: two launches fewer, and its bytes among those of the routed.
bool takes_shared_expert(const PackedExperts& experts, const PackedLinear& gate_up, const PackedLinear& down,
                         int64_t tokens, int slots, tensor::Stream& stream) {
  const PackedLinear &up = experts.weights[0].gate_up, &out = experts.weights[0].down;
  const auto alike = [](const PackedLinear& a, const PackedLinear& b) {
    return a.format == b.format && a.n == b.n && a.k == b.k;
  };
  if (stream.batch_invariant() || !alike(up, gate_up) || !alike(out, down)) return false;
  ExpertsMlp mlp;
  mlp.slots = slots, mlp.experts = experts.count, mlp.hidden = int(out.n), mlp.inter = int(out.k);
  mlp.gate_up = weight_of(up), mlp.down = weight_of(out);
  return up.format == PackedFormat::kF8 && experts_take_shared(mlp, int(tokens));
}

void expert_mlp_shared(TensorView x, TensorView ids, TensorView weights, const PackedExperts& experts,
                       const PackedLinear& gate_up, const PackedLinear& down, TensorView y, tensor::Stream& stream) {
  if (ids.shape[0] == 0) return;
  ExpertsMlp mlp = experts_of(x, ids, weights, experts, y);
  mlp.shared_gate_up = weight_of(gate_up);
  mlp.shared_down = weight_of(down);
  run_experts(mlp, stream);
}

}  // namespace spillway::kernels::cuda
