#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::TensorView;

// The (token, slot) pairs of each expert, tokens rising: pair = token * slots + slot.
struct Assignment {
  std::vector<int32_t> pairs;
  std::vector<int32_t> begin;  // [experts + 1]
};

Assignment assign(const int32_t* ids, int64_t pairs, int64_t experts) {
  Assignment a;
  a.begin.assign(static_cast<size_t>(experts) + 1, 0);
  for (int64_t i = 0; i < pairs; ++i) {
    SW_CHECK(ids[i] >= 0 && ids[i] < experts, "expert id outside the layer: " + std::to_string(ids[i]));
    ++a.begin[static_cast<size_t>(ids[i]) + 1];
  }
  std::partial_sum(a.begin.begin(), a.begin.end(), a.begin.begin());
  a.pairs.resize(static_cast<size_t>(pairs));
  std::vector<int32_t> next(a.begin.begin(), a.begin.end() - 1);
  for (int64_t i = 0; i < pairs; ++i) {
    a.pairs[static_cast<size_t>(next[static_cast<size_t>(ids[i])]++)] = static_cast<int32_t>(i);
  }
  return a;
}

// One product an expert that has rows; their rows lie one after another in the sorted order of pairs.
std::vector<Product> make_products(const Assignment& a, std::span<const ExpertWeights> experts,
                                   PackedLinear ExpertWeights::*weight, float* y) {
  std::vector<Product> products;
  for (size_t e = 0; e < experts.size(); ++e) {
    const int32_t rows = a.begin[e + 1] - a.begin[e];
    if (rows == 0) continue;
    const PackedLinear& w = experts[e].*weight;
    Product product;
    product.weight = &w;
    product.x = {row_format(w), rows, w.k, nullptr};
    product.y = y + a.begin[e] * w.n;
    product.y_stride = w.n;
    products.push_back(product);
  }
  return products;
}

size_t place_rows(std::vector<Product>& products, std::byte* data) {
  size_t used = 0;
  for (Product& product : products) {
    product.x.data = data + used;
    used += packed_bytes(product.x.format, product.x.rows, product.x.k);
  }
  return used;
}

// row(i): where the i-th row of the sorted order starts.
template <class Row>
void pack_products(const std::vector<Product>& products, tensor::Stream& stream, Row row) {
  struct Tile {
    const PackedRows* x;
    int64_t tile;
    int64_t first;
  };
  std::vector<Tile> tiles;
  int64_t first = 0;
  for (const Product& product : products) {
    const int64_t height = product.x.tile_height();
    for (int64_t t = 0; t < product.x.tiles(); ++t) tiles.push_back({&product.x, t, first + t * height});
    first += product.x.rows;
  }
  stream.parallel_for(static_cast<int64_t>(tiles.size()), 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Tile& tile = tiles[static_cast<size_t>(i)];
      const float* rows[kRowTileMost];
      const int64_t height = tile.x->tile_height();
      for (int64_t r = 0; r < height && tile.tile * height + r < tile.x->rows; ++r) rows[r] = row(tile.first + r);
      pack_tile(*tile.x, tile.tile, rows);
    }
  });
}

size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Result<int64_t> add_expert(PackedExperts& experts, int index, int count, std::span<const WeightSource> gate_up,
                           const WeightSource& down, Precision precision, tensor::Stream& stream) {
  SW_CHECK(index == static_cast<int>(experts.weights.size()) && index < count, "experts out of order");
  experts.count = count;
  ExpertWeights expert;
  SW_ASSIGN(expert.gate_up, kernels::pack_linear(gate_up, precision, stream));
  SW_ASSIGN(expert.down, kernels::pack_linear(std::span(&down, 1), precision, stream));
  const auto bytes = static_cast<int64_t>(expert.gate_up.bytes() + expert.down.bytes());
  experts.weights.push_back(std::move(expert));
  return bytes;
}

void expert_mlp(TensorView x, TensorView ids, TensorView weights, const PackedExperts& packed_experts, TensorView y,
                tensor::Stream& stream) {
  const std::span<const ExpertWeights> experts = packed_experts.weights;
  SW_CHECK(!experts.empty() && ids.shape.rank() == 2 && weights.shape == ids.shape, "ids " + to_string(ids.shape));
  const int64_t tokens = ids.shape[0];
  const int64_t slots = ids.shape[1];
  const int64_t hidden = experts[0].down.n;
  const int64_t inner = experts[0].down.k;
  SW_CHECK(x.shape == (tensor::Shape{tokens, hidden}) && y.shape == x.shape, "x " + to_string(x.shape));
  SW_CHECK(experts[0].gate_up.n == 2 * inner && experts[0].gate_up.k == hidden, "experts of other shapes than x");
  if (tokens == 0) return;
  const int64_t pairs = tokens * slots;
  const Assignment a = assign(ids.as<int32_t>(), pairs, static_cast<int64_t>(experts.size()));
  auto up = make_products(a, experts, &ExpertWeights::gate_up, nullptr);
  auto down = make_products(a, experts, &ExpertWeights::down, nullptr);
  const size_t up_rows = place_rows(up, nullptr);
  const size_t down_rows = place_rows(down, nullptr);
  const size_t products = std::max(products_bytes(up, stream), products_bytes(down, stream));
  const size_t wide = rounded(static_cast<size_t>(pairs * 2 * inner) * 4);
  const size_t narrow = rounded(static_cast<size_t>(pairs * hidden) * 4);
  const size_t packed = std::max(up_rows, down_rows);
  auto* scratch = static_cast<std::byte*>(stream.scratch(wide + narrow + packed + products));
  auto* gate_up = reinterpret_cast<float*>(scratch);
  auto* outputs = reinterpret_cast<float*>(scratch + wide);
  std::byte* rows = scratch + wide + narrow;
  up = make_products(a, experts, &ExpertWeights::gate_up, gate_up);
  down = make_products(a, experts, &ExpertWeights::down, outputs);
  place_rows(up, rows);
  place_rows(down, rows);

  const float* in = x.as<float>();
  pack_products(up, stream, [&](int64_t i) { return in + a.pairs[static_cast<size_t>(i)] / slots * hidden; });
  run_products(up, rows + packed, stream);
  stream.parallel_for(pairs, 16384 / inner + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = gate_up + i * 2 * inner;
      kernel_table().silu_mul(row, row + inner, inner, row);
    }
  });
  pack_products(down, stream, [&](int64_t i) { return gate_up + i * 2 * inner; });
  run_products(down, rows + packed, stream);

  std::vector<int32_t> place(static_cast<size_t>(pairs));  // of each pair in the sorted order
  for (int64_t i = 0; i < pairs; ++i)
    place[static_cast<size_t>(a.pairs[static_cast<size_t>(i)])] = static_cast<int32_t>(i);
  const float* weight = weights.as<float>();
  float* out = y.as<float>();
  stream.parallel_for(tokens, 16384 / (slots * hidden) + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t pair = begin * slots; pair < end * slots; ++pair) {
      kernel_table().add_scaled(out + pair / slots * hidden, outputs + place[static_cast<size_t>(pair)] * hidden,
                                weight[pair], hidden);
    }
  });
}

}  // namespace spillway::kernels::cpu
