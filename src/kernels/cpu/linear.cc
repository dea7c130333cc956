#include <vector>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {
namespace {

// Packing fewer elements than this is quicker than waking a thread.
constexpr int64_t kGrainElements = 1 << 15;

void pack_all(const PackedRows& packed, const float* x, int64_t x_stride, tensor::Stream& stream) {
  const int64_t height = packed.tile_height();
  const int64_t tile_elements = height * packed.k;
  stream.parallel_for(packed.tiles(), kGrainElements / tile_elements + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const float* rows[kRowTileMost];
      for (int64_t r = 0; r < height && tile * height + r < packed.rows; ++r) {
        rows[r] = x + (tile * height + r) * x_stride;
      }
      pack_tile(packed, tile, rows);
    }
  });
}

}  // namespace

void linear(tensor::TensorView x, const PackedLinear& weight, tensor::TensorView y, tensor::Stream& stream,
            const LinearOptions& options) {
  if (!options.norm.empty()) {
    LinearOptions rest = options;
    rest.norm = {};
    cpu::rms_norm(x, options.norm.weight, options.norm.epsilon, options.norm.normed, stream);
    return cpu::linear(options.norm.normed, weight, y, stream, rest);
  }
  const int64_t rows = x.elements() / weight.k;
  SW_CHECK(x.shape[-1] == weight.k, "x " + to_string(x.shape) + " for K = " + std::to_string(weight.k));
  SW_CHECK(y.elements() == rows * weight.n && y.shape[-1] == weight.n,
           "y " + to_string(y.shape) + " for N = " + std::to_string(weight.n));
  SW_CHECK(options.bias.empty() || options.bias.elements() == weight.n, "bias of another size than N");
  if (rows == 0) return;
  Product product;
  product.weight = &weight;
  product.x = {row_format(weight), rows, weight.k, nullptr, multipliers_of(weight)};
  product.y = y.as<float>();
  product.y_stride = weight.n;
  product.bias = options.bias.empty() ? nullptr : options.bias.as<float>();
  product.accumulate = options.accumulate;
  product.activation = options.activation;
  const size_t packed = packed_bytes(product.x.format, rows, weight.k);
  auto* scratch = static_cast<std::byte*>(stream.scratch(packed + products_bytes({&product, 1}, stream)));
  product.x.data = scratch;
  pack_all(product.x, x.as<float>(), weight.k, stream);
  run_products({&product, 1}, scratch + packed, stream);
}

void gated_linear(tensor::TensorView x, const PackedLinear& gate_up, tensor::TensorView work, tensor::TensorView y,
                  tensor::Stream& stream, const InputNorm& norm) {
  cpu::linear(x, gate_up, work, stream, {.norm = norm});
  cpu::silu_mul(work, y, stream);
}

Result<HeadLinear> pack_heads(tensor::TensorView full, int heads, int64_t first, int64_t rows, bool transposed,
                              Precision precision, tensor::Stream& stream) {
  const int64_t block = full.shape[0] / heads;
  const int64_t columns = full.shape[1];
  HeadLinear packed{heads, transposed ? columns : rows, transposed ? rows : columns, {}};
  for (int64_t h = 0; h < heads; ++h) {
    const WeightSource source{
        .weight = full.rows(h * block + first, h * block + first + rows), .scales = {}, .transposed = transposed};
    SW_ASSIGN(PackedLinear weight, kernels::pack_linear(std::span(&source, 1), precision, stream));
    packed.weights.push_back(std::move(weight));
  }
  return packed;
}

void linear_by_head(tensor::TensorView x, int x_offset, std::span<const PackedLinear> weights, tensor::TensorView y,
                    tensor::Stream& stream) {
  const auto heads = static_cast<int64_t>(weights.size());
  SW_CHECK(heads > 0 && x.shape.rank() == 3 && x.shape[1] == heads, "x " + to_string(x.shape) + " by head");
  const int64_t tokens = x.shape[0];
  const int64_t x_stride = x.shape[2];
  const int64_t n = weights[0].n;
  const int64_t k = weights[0].k;
  SW_CHECK(x_offset >= 0 && x_offset + k <= x_stride, "K outside the rows of x");
  SW_CHECK(y.shape == (tensor::Shape{tokens, heads, n}), "y " + to_string(y.shape) + " by head");
  if (tokens == 0) return;
  std::vector<Product> products(weights.size());
  const RowFormat format = row_format(weights[0]);
  const size_t packed = packed_bytes(format, tokens, k);
  for (size_t h = 0; h < products.size(); ++h) {
    SW_CHECK(weights[h].n == n && weights[h].k == k && weights[h].precision == weights[0].precision,
             "heads of different shapes");
    products[h].weight = &weights[h];
    products[h].x = {format, tokens, k, nullptr};
    products[h].y = y.as<float>() + static_cast<int64_t>(h) * n;
    products[h].y_stride = heads * n;
  }
  const size_t bytes = packed * products.size() + products_bytes(products, stream);
  auto* scratch = static_cast<std::byte*>(stream.scratch(bytes));
  for (size_t h = 0; h < products.size(); ++h) products[h].x.data = scratch + h * packed;
  const float* data = x.as<float>() + x_offset;
  const int64_t height = products[0].x.tile_height(), tiles = products[0].x.tiles();
  stream.parallel_for(heads, kGrainElements / (tokens * k) + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t h = begin; h < end; ++h) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const float* rows[kRowTileMost];
        for (int64_t r = 0; r < height && tile * height + r < tokens; ++r) {
          rows[r] = data + ((tile * height + r) * heads + h) * x_stride;
        }
        pack_tile(products[static_cast<size_t>(h)].x, tile, rows);
      }
    }
  });
  run_products(products, scratch + packed * products.size(), stream);
}

}  // namespace spillway::kernels::cpu
