#include "kernels/cpu/products.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/packing.h"

namespace spillway::kernels::cpu {
namespace {

constexpr int64_t kGroupPanels = 4;  // panels that share one pass over the packed rows
constexpr int64_t kBlockTiles = 48;  // row tiles whose sums are kept at a time
// Up to this many row tiles go over a whole panel one after another: it streams from memory without gaps for the first
// and comes from the second cache for the others.
constexpr int64_t kFewTiles = 4;
constexpr int64_t kChunk = 256;         // K of a piece of a panel that stays in the first cache
constexpr int64_t kWidenedChunk = 128;  // of float32, which takes twice the room
// Panels up to this size are passed whole: a row tile stays in the first cache, its sums in one place, and the panels
// of a group, together in the second cache, stream past it.
constexpr int64_t kWholePanelBytes = 256 << 10;
constexpr int64_t kGroupBytes = 512 << 10;

// How one product's panels are brought to a tile kernel.
struct Path {
  enum class Widen : uint8_t { kNo, kF32, kBf16 };
  Widen widen = Widen::kNo;
  void (*tile)(const Tile&) = nullptr;
  int64_t chunk = 0;      // K elements at a time
  int64_t segment = 0;    // K elements of one call: a scale block, or the chunk
  bool by_tiles = false;  // each row tile goes over all of K of the group's panels before the next
};

// Floats of scales and the like that a panel has for each block of K.
int64_t scale_floats(const PackedLinear& w) { return w.precision == Precision::kW8A8 ? 2 * kPanel : kPanel; }

Path path_of(const Product& product) {
  const PackedLinear& w = *product.weight;
  const KernelTable& table = kernel_table();
  const int64_t tiles = tiles_of(product.x.rows);
  const bool few_rows = tiles <= kFewTiles;
  Path path;
  switch (product.x.format) {
    case RowFormat::kInt8:
      path.tile = table.tile_int8;
      break;
    case RowFormat::kBytes:
      path.tile = table.tile_bytes;
      break;
    case RowFormat::kBf16:
      path.tile = table.tile_bf16;
      if (w.format == PackedFormat::kF8) {
        const bool fused = tiles <= 2 && tile_height(product.x.rows) <= table.f8_rows_max;
        path.widen = fused ? Path::Widen::kNo : Path::Widen::kBf16;
        if (fused) path.tile = table.tile_f8;
      }
      break;
    case RowFormat::kF32:
    case RowFormat::kRounded:
      path.tile = table.tile_f32;
      if (few_rows && w.format == PackedFormat::kBf16) {
        path.tile = table.tile_f32_of_bf16;
      } else if (few_rows && w.format == PackedFormat::kF8) {
        path.tile = table.tile_f32_of_f8;
      } else if (w.format != PackedFormat::kF32) {
        path.widen = Path::Widen::kF32;
      }
      break;
  }
  const int64_t k = padded_k(w.k);
  path.by_tiles = !few_rows && path.widen == Path::Widen::kNo && panel_bytes(w.format, k) <= kWholePanelBytes;
  const int64_t stored = w.format == PackedFormat::kF32 ? kWidenedChunk : kChunk;
  path.chunk = path.widen == Path::Widen::kNo     ? (few_rows || path.by_tiles ? k : stored)
               : path.widen == Path::Widen::kBf16 ? kChunk
                                                  : kWidenedChunk;
  if (w.scale_block > 0) path.chunk = (path.chunk + w.scale_block - 1) / w.scale_block * w.scale_block;
  path.chunk = std::min(path.chunk, k);
  path.segment = w.scale_block > 0 ? w.scale_block : path.chunk;
  return path;
}

struct ThreadScratch {
  float* acc = nullptr;
  std::byte* widened = nullptr;
};

size_t acc_floats(const Product& product) {
  const int64_t tiles = path_of(product).by_tiles ? kFewTiles : kBlockTiles;  // a shorter last block has few rows
  return static_cast<size_t>(std::min(product.x.rows, tiles * kRowTile) * kGroupPanels * kPanel);
}
size_t widened_bytes(const Product& product) {
  const Path path = path_of(product);
  return path.widen == Path::Widen::kNo ? 0 : static_cast<size_t>(path.chunk * kPanel * 4);
}

const std::byte* widen(const PackedLinear& w, const Path& path, const std::byte* piece, int64_t k, std::byte* out) {
  const KernelTable& table = kernel_table();
  const auto* halves = reinterpret_cast<const uint16_t*>(piece);
  const auto* bytes = reinterpret_cast<const uint8_t*>(piece);
  auto* floats = reinterpret_cast<float*>(out);
  if (path.widen == Path::Widen::kNo) return piece;
  if (path.widen == Path::Widen::kBf16) {
    table.widen_f8_to_bf16(bytes, k, reinterpret_cast<uint16_t*>(out));
  } else if (w.format == PackedFormat::kF8) {
    table.widen_f8(bytes, k, floats);
  } else if (w.format == PackedFormat::kF16) {
    table.widen_f16(halves, k, floats);
  } else {
    table.widen_bf16(halves, k, floats);
  }
  return out;
}

// The row tiles [tile_begin, tile_end) against K elements [k0, k0 + k) of one panel.
void multiply_piece(const Product& product, const Path& path, int64_t panel, const std::byte* piece, int64_t k0,
                    int64_t k, int64_t tile_begin, int64_t tile_end, float* acc) {
  const PackedLinear& w = *product.weight;
  const PackedRows& x = product.x;
  const int64_t k_all = padded_k(w.k);
  const int64_t element = row_element_bytes(x.format);
  const int64_t piece_k_bytes = path.widen == Path::Widen::kNo     ? panel_bytes(w.format, 4) / 4
                                : path.widen == Path::Widen::kBf16 ? kPanel * 2
                                                                   : kPanel * 4;
  const int64_t blocks = w.scale_block > 0 ? (w.k + w.scale_block - 1) / w.scale_block : 0;
  const float* scales = blocks > 0 ? w.scales.as<float>() + panel * blocks * scale_floats(w) : nullptr;
  const int64_t tiles = tiles_of(x.rows);
  const int64_t height = tile_height(x.rows);
  const auto* x_scales = reinterpret_cast<const float*>(x.data + tiles * kRowTile * k_all * element);
  const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + tiles * kRowTile * blocks);
  const auto* x_zeros = reinterpret_cast<const float*>(x_sums + tiles * kRowTile * blocks);
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    Tile tile;
    tile.rows = static_cast<int>(std::min(height, x.rows - t * height));
    tile.acc = acc + (t - tile_begin) * height * kPanel;
    const std::byte* rows = x.data + t * height * k_all * element;
    for (int64_t at = 0; at < k; at += path.segment) {
      tile.k = std::min(path.segment, k - at);
      tile.x = rows + (k0 + at) * tile.rows * element;
      tile.w = piece + at * piece_k_bytes;
      if (blocks > 0) {
        const int64_t block = (k0 + at) / w.scale_block;
        tile.scale = scales + block * scale_floats(w);
        tile.x_scale = x_scales + t * height * blocks + block * tile.rows;
        tile.x_sum = x_sums + t * height * blocks + block * tile.rows;
        if (x.format == RowFormat::kBytes) tile.x_zero = x_zeros + t * height * blocks + block * tile.rows;
      }
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
  const int64_t height = tile_height(product.x.rows);
  const auto* data = w.data.raw<const std::byte>();
  for (int64_t tile = 0; tile < tiles_of(product.x.rows); ++tile) {
    const int64_t row = tile * height, rows = std::min(height, product.x.rows - row);
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      std::memset(acc, 0, static_cast<size_t>(rows * kPanel) * sizeof(float));
      multiply_piece(product, path, p, data + p * stride, 0, k, tile, tile + 1, acc);
      write_out(product, p, row, rows, acc);
    }
  }
}

void run_group(const Product& product, int64_t panel_begin, int64_t panel_end, const ThreadScratch& scratch) {
  const PackedLinear& w = *product.weight;
  const Path path = path_of(product);
  if (path.by_tiles) return run_by_tiles(product, path, panel_begin, panel_end, scratch.acc);
  const int64_t k_all = padded_k(w.k);
  const int64_t stride = panel_bytes(w.format, k_all);
  const auto* data = w.data.raw<const std::byte>();
  for (int64_t tile = 0; tile < tiles_of(product.x.rows); tile += kBlockTiles) {
    const int64_t tile_end = std::min(tile + kBlockTiles, tiles_of(product.x.rows));
    const int64_t row = tile * tile_height(product.x.rows);
    const int64_t rows = std::min(tile_end * tile_height(product.x.rows), product.x.rows) - row;
    const int64_t acc_stride = rows * kPanel;
    std::fill(scratch.acc, scratch.acc + acc_stride * (panel_end - panel_begin), 0.0f);
    for (int64_t k0 = 0; k0 < k_all; k0 += path.chunk) {
      const int64_t k = std::min(path.chunk, k_all - k0);
      for (int64_t p = panel_begin; p < panel_end; ++p) {
        const std::byte* piece = data + p * stride + panel_bytes(w.format, k0);
        piece = widen(w, path, piece, k, scratch.widened);
        multiply_piece(product, path, p, piece, k0, k, tile, tile_end, scratch.acc + (p - panel_begin) * acc_stride);
      }
    }
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      write_out(product, p, row, rows, scratch.acc + (p - panel_begin) * acc_stride);
    }
  }
}

size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct ScratchSizes {
  size_t acc = 0;
  size_t widened = 0;
};
ScratchSizes scratch_sizes(std::span<const Product> products) {
  ScratchSizes sizes;
  for (const Product& product : products) {
    sizes.acc = std::max(sizes.acc, rounded(acc_floats(product) * 4));
    sizes.widened = std::max(sizes.widened, rounded(widened_bytes(product)));
  }
  return sizes;
}

}  // namespace

size_t products_bytes(std::span<const Product> products, const tensor::Stream& stream) {
  const ScratchSizes sizes = scratch_sizes(products);
  return (sizes.acc + sizes.widened) * static_cast<size_t>(stream.threads());
}

void run_products(std::span<const Product> products, std::byte* scratch, tensor::Stream& stream) {
  const ScratchSizes sizes = scratch_sizes(products);
  int64_t panels = 0;
  for (const Product& product : products) panels += panels_of(product.weight->n);
  // Enough groups for the threads to share evenly, but no more: each reads all packed rows.
  int64_t most = kGroupPanels;
  for (const Product& product : products) {
    if (!path_of(product).by_tiles) continue;
    most = std::clamp<int64_t>(kGroupBytes / panel_bytes(product.weight->format, padded_k(product.weight->k)), 1, most);
  }
  const int64_t width = std::clamp<int64_t>(panels / (8 * stream.threads()), 1, most);
  int64_t groups = 0;
  for (const Product& product : products) groups += (panels_of(product.weight->n) + width - 1) / width;
  stream.parallel_tasks(groups, [&](int64_t group, int thread) {
    const Product* product = products.data();
    int64_t count = (panels_of(product->weight->n) + width - 1) / width;
    while (group >= count) {
      group -= count;
      ++product;
      count = (panels_of(product->weight->n) + width - 1) / width;
    }
    std::byte* mine = scratch + static_cast<size_t>(thread) * (sizes.acc + sizes.widened);
    const ThreadScratch thread_scratch{reinterpret_cast<float*>(mine), mine + sizes.acc};
    const int64_t begin = group * width;
    run_group(*product, begin, std::min(begin + width, panels_of(product->weight->n)), thread_scratch);
  });
}

}  // namespace spillway::kernels::cpu
