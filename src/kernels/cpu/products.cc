#include "kernels/cpu/products.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/packing.h"
#include "kernels/cpu/row_products.h"

namespace spillway::kernels::cpu {
namespace {

constexpr int64_t kGroupPanels = 4;  // panels that share one pass over the packed rows
constexpr int64_t kBlockTiles = 48;  // row tiles whose sums are kept at a time
// Up to this many row tiles go over a whole panel one after another: it streams from memory without gaps for the first
// and comes from the second cache for the others.
constexpr int64_t kFewTiles = 4;
constexpr int64_t kChunk = 256;  // K of a piece of a panel that stays in the first cache, a multiple of the group
// Panels up to this size are passed whole: a row tile stays in the first cache, its sums in one place, and the panels
// of a group, together in the second cache, stream past it.
constexpr int64_t kWholePanelBytes = 256 << 10;
constexpr int64_t kGroupBytes = 512 << 10;

// How one product's panels are brought to a tile kernel.
struct Path {
  void (*tile)(const Tile&) = nullptr;
  int64_t chunk = 0;      // K elements at a time
  bool by_tiles = false;  // each row tile goes over all of K of the group's panels before the next
};

bool in_rows(const Product& product) { return !product.weight->rows.empty(); }

// Floats of scales and the like that a panel has for each block of K.
int64_t scale_floats(const PackedLinear& w) { return w.precision == Precision::kW8A8 ? 2 * kPanel : kPanel; }

Path path_of(const Product& product) {
  const PackedLinear& w = *product.weight;
  Path path;
  path.tile = product.x.format == RowFormat::kInt8 ? kernel_table().tile_int8 : kernel_table().tile_bytes;
  const int64_t k = padded_k(w.k);
  const bool few_rows = tiles_of(product.x) <= kFewTiles;
  path.by_tiles = !few_rows && panel_bytes(w.format, k) <= kWholePanelBytes;
  path.chunk = few_rows || path.by_tiles ? k : std::min(kChunk, k);
  return path;
}

size_t acc_floats(const Product& product) {
  const int64_t tiles = path_of(product).by_tiles ? kFewTiles : kBlockTiles;  // a shorter last block has few rows
  return static_cast<size_t>(std::min(product.x.rows, tiles * kRowTile) * kGroupPanels * kPanel);
}

// The row tiles [tile_begin, tile_end) against K elements [k0, k0 + k) of one panel.
void multiply_piece(const Product& product, const Path& path, int64_t panel, const std::byte* piece, int64_t k0,
                    int64_t k, int64_t tile_begin, int64_t tile_end, float* acc) {
  const PackedLinear& w = *product.weight;
  const PackedRows& x = product.x;
  const int64_t k_all = padded_k(w.k);
  const int64_t element = row_element_bytes(x.format);
  const int64_t blocks = (w.k + w.scale_block - 1) / w.scale_block;
  const float* scales = w.scales.as<float>() + panel * blocks * scale_floats(w);
  const int64_t tiles = tiles_of(x);
  const int64_t height = tile_height(x);
  const auto* x_scales = reinterpret_cast<const float*>(x.data + tiles * kRowTile * k_all * element);
  const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + tiles * kRowTile * blocks);
  const auto* x_zeros = reinterpret_cast<const float*>(x_sums + tiles * kRowTile * blocks);
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    Tile tile;
    tile.rows = static_cast<int>(std::min(height, x.rows - t * height));
    tile.acc = acc + (t - tile_begin) * height * kPanel;
    const std::byte* rows = x.data + t * height * k_all * element;
    for (int64_t at = 0; at < k; at += w.scale_block) {
      const int64_t block = (k0 + at) / w.scale_block;
      tile.k = std::min<int64_t>(w.scale_block, k - at);
      tile.x = rows + (k0 + at) * tile.rows * element;
      tile.w = piece + panel_bytes(w.format, at);
      tile.scale = scales + block * scale_floats(w);
      tile.x_scale = x_scales + t * height * blocks + block * tile.rows;
      tile.x_sum = x_sums + t * height * blocks + block * tile.rows;
      if (x.format == RowFormat::kBytes) tile.x_zero = x_zeros + t * height * blocks + block * tile.rows;
      path.tile(tile);
    }
  }
}

void write_out(const Product& product, int64_t panel, int64_t row_begin, int64_t rows, const float* acc) {
  const int64_t n0 = panel * kPanel;
  const auto width = static_cast<int>(std::min<int64_t>(kPanel, product.weight->n - n0));
  RowSums sums;
  sums.sums = acc;
  sums.bias = product.bias != nullptr ? product.bias + n0 : nullptr;
  sums.accumulate = product.accumulate;
  sums.activation = product.activation;
  sums.rows = rows;
  sums.width = width;
  sums.y = product.y + row_begin * product.y_stride + n0;
  sums.y_stride = product.y_stride;
  kernel_table().finish_rows(sums);
}

void run_by_tiles(const Product& product, const Path& path, int64_t panel_begin, int64_t panel_end, float* acc) {
  const PackedLinear& w = *product.weight;
  const int64_t k = padded_k(w.k), stride = panel_bytes(w.format, k);
  const int64_t height = tile_height(product.x);
  const auto* data = w.data.raw<const std::byte>();
  for (int64_t tile = 0; tile < tiles_of(product.x); ++tile) {
    const int64_t row = tile * height, rows = std::min(height, product.x.rows - row);
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      std::memset(acc, 0, static_cast<size_t>(rows * kPanel) * sizeof(float));
      multiply_piece(product, path, p, data + p * stride, 0, k, tile, tile + 1, acc);
      write_out(product, p, row, rows, acc);
    }
  }
}

void run_group(const Product& product, int64_t panel_begin, int64_t panel_end, std::byte* scratch) {
  const PackedLinear& w = *product.weight;
  const Path path = path_of(product);
  auto* acc = reinterpret_cast<float*>(scratch);
  if (path.by_tiles) return run_by_tiles(product, path, panel_begin, panel_end, acc);
  const int64_t k_all = padded_k(w.k);
  const int64_t stride = panel_bytes(w.format, k_all);
  const auto* data = w.data.raw<const std::byte>();
  for (int64_t tile = 0; tile < tiles_of(product.x); tile += kBlockTiles) {
    const int64_t tile_end = std::min(tile + kBlockTiles, tiles_of(product.x));
    const int64_t row = tile * tile_height(product.x);
    const int64_t rows = std::min(tile_end * tile_height(product.x), product.x.rows) - row;
    const int64_t acc_stride = rows * kPanel;
    std::fill(acc, acc + acc_stride * (panel_end - panel_begin), 0.0f);
    for (int64_t k0 = 0; k0 < k_all; k0 += path.chunk) {
      const int64_t k = std::min(path.chunk, k_all - k0);
      for (int64_t p = panel_begin; p < panel_end; ++p) {
        const std::byte* piece = data + p * stride + panel_bytes(w.format, k0);
        multiply_piece(product, path, p, piece, k0, k, tile, tile_end, acc + (p - panel_begin) * acc_stride);
      }
    }
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      write_out(product, p, row, rows, acc + (p - panel_begin) * acc_stride);
    }
  }
}

// Panels of a group at most.
int64_t group_panels(const Product& product) {
  if (in_rows(product)) return row_group_panels(product);
  if (!path_of(product).by_tiles) return kGroupPanels;
  const PackedLinear& w = *product.weight;
  return std::clamp<int64_t>(kGroupBytes / panel_bytes(w.format, padded_k(w.k)), 1, kGroupPanels);
}

int64_t panel_count(const Product& product) {
  return in_rows(product) ? int64_t(product.weight->rows.size()) : panels_of(product.weight->n);
}

size_t thread_bytes(std::span<const Product> products) {
  size_t most = 0;
  for (const Product& product : products) {
    const size_t bytes = in_rows(product) ? row_product_bytes(product) : acc_floats(product) * 4;
    most = std::max(most, (bytes + 63) / 64 * 64);
  }
  return most;
}

}  // namespace

size_t products_bytes(std::span<const Product> products, const tensor::Stream& stream) {
  return thread_bytes(products) * static_cast<size_t>(stream.threads());
}

void run_products(std::span<const Product> products, std::byte* scratch, tensor::Stream& stream) {
  const size_t bytes = thread_bytes(products);
  int64_t panels = 0, most = kGroupPanels;
  for (const Product& product : products) {
    panels += panel_count(product);
    most = std::min(most, group_panels(product));
  }
  // Enough groups for the threads to share evenly, but no more: each reads all packed rows.
  const int64_t width = std::clamp<int64_t>(panels / (8 * stream.threads()), 1, most);
  int64_t groups = 0;
  for (const Product& product : products) groups += (panel_count(product) + width - 1) / width;
  stream.parallel_tasks(groups, [&](int64_t group, int thread) {
    const Product* product = products.data();
    int64_t count = (panel_count(*product) + width - 1) / width;
    while (group >= count) {
      group -= count;
      ++product;
      count = (panel_count(*product) + width - 1) / width;
    }
    const int64_t begin = group * width;
    if (in_rows(*product)) {
      const RowGroup rows{.begin = begin, .panels = width, .threads = stream.threads()};
      return run_row_group(*product, rows, scratch + static_cast<size_t>(thread) * bytes);
    }
    run_group(*product, begin, std::min(begin + width, panel_count(*product)),
              scratch + static_cast<size_t>(thread) * bytes);
  });
}

}  // namespace spillway::kernels::cpu
