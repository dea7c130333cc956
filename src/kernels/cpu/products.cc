#include "kernels/cpu/products.h"

#include <algorithm>

#include "kernels/cpu/packing.h"
#include "kernels/late_weight.h"

namespace spillway::kernels::cpu {
namespace {

constexpr int64_t kGroupPanels = 4;  // panels that share one pass over the packed rows
constexpr int64_t kBlockRows = 576;  // rows whose sums are kept at a time
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
  const std::byte* panels = nullptr;  // null: piece by piece from the rows of a late weight
  enum class Widen : uint8_t { kNo, kF32, kBf16 };
  Widen widen = Widen::kNo;
  void (*tile)(const Tile&) = nullptr;
  int64_t chunk = 0;      // K elements at a time
  int64_t segment = 0;    // K elements of one call: a scale block, or the chunk
  bool by_tiles = false;  // each row tile goes over all of K of the group's panels before the next
  bool in_place = false;  // sums that are the result are made where they stay
};

// Row tiles whose sums are kept at a time.
int64_t block_tiles(const Product& product) { return kBlockRows / product.x.tile_most(); }

// Floats of scales and the like that a panel has for each block of K.
int64_t scale_floats(const PackedLinear& w) { return w.precision == Precision::kW8A8 ? 2 * kPanel : kPanel; }

// Blocks of K that share a scale; 0 without scales.
int64_t blocks_of(int64_t k, const PackedLinear& w) {
  return w.scale_block > 0 ? (k + w.scale_block - 1) / w.scale_block : 0;
}

const std::byte* panels_now(const PackedLinear& w) {
  return w.late == nullptr ? w.data.raw<const std::byte>() : w.late->panels();
}

Path path_of(const Product& product, const std::byte* panels) {
  const PackedLinear& w = *product.weight;
  const KernelTable& table = kernel_table();
  const TileUnit* unit = product.x.unit();
  const int64_t tiles = product.x.tiles();
  const bool few_rows = tiles <= kFewTiles;
  Path path;
  path.panels = panels;
  switch (product.x.format) {
    case RowFormat::kInt8:
      path.tile = unit != nullptr ? unit->tile_int8 : table.tile_int8;
      break;
    case RowFormat::kBytes:
      path.tile = unit != nullptr ? unit->tile_bytes : table.tile_bytes;
      break;
    case RowFormat::kBf16:
      path.tile = unit != nullptr ? unit->tile_bf16 : table.tile_bf16;
      if (w.format == PackedFormat::kF8) {
        const bool fused = unit == nullptr && tiles <= 2 && product.x.tile_height() <= table.f8_rows_max;
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
  const bool whole = panels != nullptr && path.widen == Path::Widen::kNo;
  path.by_tiles = !few_rows && whole && unit == nullptr && panel_bytes(w.format, k) <= kWholePanelBytes;
  const int64_t stored = w.format == PackedFormat::kF32 ? kWidenedChunk : kChunk;
  path.chunk = path.widen == Path::Widen::kNo     ? (whole && (few_rows || path.by_tiles) ? k : stored)
               : path.widen == Path::Widen::kBf16 ? kChunk
                                                  : kWidenedChunk;
  if (w.scale_block > 0) path.chunk = (path.chunk + w.scale_block - 1) / w.scale_block * w.scale_block;
  path.chunk = std::min(path.chunk, k);
  path.segment = w.scale_block > 0 ? w.scale_block : path.chunk;
  path.in_place = unit == nullptr || path.segment >= k;
  return path;
}

// What a thread needs, one after another. A late weight's is that of its rows, which is enough for its panels.
struct ScratchSizes {
  size_t acc = 0;
  size_t widened = 0;
  size_t copied = 0;  // of rows: a piece of a panel
  size_t scales = 0;  // and those of its groups, which are quantised on the way

  size_t bytes() const { return acc + widened + copied + scales; }
};

ScratchSizes scratch_sizes(const Product& product) {
  const auto rounded = [](int64_t bytes) { return static_cast<size_t>((bytes + 63) / 64 * 64); };
  const PackedLinear& w = *product.weight;
  const bool late = w.late != nullptr;
  const Path path = path_of(product, late ? nullptr : panels_now(w));
  const int64_t tiles = path.by_tiles ? kFewTiles : block_tiles(product);  // a shorter last block has few rows
  ScratchSizes sizes;
  sizes.acc = rounded(std::min(product.x.rows, tiles * product.x.tile_most()) * kGroupPanels * kPanel * 4);
  sizes.widened = path.widen == Path::Widen::kNo ? 0 : rounded(path.chunk * kPanel * 4);
  sizes.copied = late ? rounded(panel_bytes(w.format, path.chunk)) : 0;
  if (late && w.format == PackedFormat::kInt8) sizes.scales = rounded(blocks_of(path.chunk, w) * kPanel * 4);
  return sizes;
}

struct ThreadScratch {
  float* acc = nullptr;
  std::byte* widened = nullptr;
  std::byte* copied = nullptr;
  float* scales = nullptr;
  int64_t next_panel = 0;  // where the thread is likely to go on after its group
};

// Some K elements of a panel.
struct Piece {
  const std::byte* data = nullptr;
  const float* scales = nullptr;  // of the first block of K; null: none
};

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

// Where a panel's sums of some rows are made.
struct Sums {
  float* at = nullptr;
  int64_t stride = kPanel;
  bool in_place = false;  // where they stay
};

// In y where they are the result as they are, else at acc.
Sums sums_of(const Product& product, const Path& path, int64_t panel, int64_t row, float* acc) {
  const bool plain =
      path.in_place && product.bias == nullptr && !product.accumulate && product.activation == Activation::kNone;
  if (!plain || (panel + 1) * kPanel > product.weight->n) return {.at = acc};
  return {.at = product.y + row * product.y_stride + panel * kPanel, .stride = product.y_stride, .in_place = true};
}

// The row tiles [tile_begin, tile_end) against K elements [k0, k0 + k) of one panel, which the piece has.
void multiply_piece(const Product& product, const Path& path, const Piece& piece, int64_t k0, int64_t k,
                    int64_t tile_begin, int64_t tile_end, const Sums& sums) {
  const PackedLinear& w = *product.weight;
  const PackedRows& x = product.x;
  const int64_t k_all = padded_k(w.k);
  const int64_t element = row_element_bytes(x.format);
  const int64_t piece_k_bytes = path.widen == Path::Widen::kNo     ? panel_bytes(w.format, 4) / 4
                                : path.widen == Path::Widen::kBf16 ? kPanel * 2
                                                                   : kPanel * 4;
  const int64_t blocks = blocks_of(w.k, w);
  const int64_t capacity = x.tile_capacity();
  const int64_t height = x.tile_height();
  const auto* x_scales = reinterpret_cast<const float*>(x.data + capacity * k_all * element);
  const auto* x_sums = reinterpret_cast<const int32_t*>(x_scales + capacity * blocks);
  const auto* x_zeros = reinterpret_cast<const float*>(x_sums + capacity * blocks);
  for (int64_t t = tile_begin; t < tile_end; ++t) {
    Tile tile;
    tile.rows = static_cast<int>(std::min(height, x.rows - t * height));
    tile.acc = sums.at + (t - tile_begin) * height * sums.stride;
    tile.acc_stride = sums.stride;
    const std::byte* rows = x.data + t * height * k_all * element;
    for (int64_t at = 0; at < k; at += path.segment) {
      tile.k = std::min(path.segment, k - at);
      tile.x = rows + (k0 + at) * tile.rows * element;
      tile.w = piece.data + at * piece_k_bytes;
      tile.fresh = k0 + at == 0;
      if (blocks > 0) {
        const int64_t block = (k0 + at) / w.scale_block;
        tile.scale = piece.scales + at / w.scale_block * scale_floats(w);
        tile.x_scale = x_scales + t * height * blocks + block * tile.rows;
        tile.x_sum = x_sums + t * height * blocks + block * tile.rows;
        if (x.format == RowFormat::kBytes) tile.x_zero = x_zeros + t * height * blocks + block * tile.rows;
      }
      path.tile(tile);
    }
  }
}

void write_out(const Product& product, int64_t panel, int64_t row_begin, int64_t rows, const Sums& made) {
  if (made.in_place) return;
  const int64_t n0 = panel * kPanel;
  const auto width = static_cast<int>(std::min<int64_t>(kPanel, product.weight->n - n0));
  RowSums sums;
  sums.sums = made.at;
  sums.bias = product.bias != nullptr ? product.bias + n0 : nullptr;
  sums.accumulate = product.accumulate;
  sums.activation = product.activation;
  sums.rows = rows;
  sums.width = width;
  sums.y = product.y + row_begin * product.y_stride + n0;
  sums.y_stride = product.y_stride;
  kernel_table().finish_rows(sums);
}

const float* packed_scales(const PackedLinear& w, int64_t panel, int64_t k0) {
  if (w.scale_block == 0) return nullptr;
  return w.scales.as<float>() + (panel * blocks_of(w.k, w) + k0 / w.scale_block) * scale_floats(w);
}

void run_by_tiles(const Product& product, const Path& path, int64_t panel_begin, int64_t panel_end, float* acc) {
  const PackedLinear& w = *product.weight;
  const int64_t k = padded_k(w.k), stride = panel_bytes(w.format, k);
  const int64_t height = product.x.tile_height();
  for (int64_t tile = 0; tile < product.x.tiles(); ++tile) {
    const int64_t row = tile * height, rows = std::min(height, product.x.rows - row);
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      const Sums sums = sums_of(product, path, p, row, acc);
      const Piece panel{path.panels + p * stride, packed_scales(w, p, 0)};
      multiply_piece(product, path, panel, 0, k, tile, tile + 1, sums);
      write_out(product, p, row, rows, sums);
    }
  }
}

void run_group(const Product& product, int64_t panel_begin, int64_t panel_end, const ThreadScratch& scratch) {
  const PackedLinear& w = *product.weight;
  const Path path = path_of(product, panels_now(w));
  if (const TileUnit* unit = product.x.unit()) unit->enter();
  if (path.by_tiles) return run_by_tiles(product, path, panel_begin, panel_end, scratch.acc);
  const int64_t k_all = padded_k(w.k);
  const int64_t stride = panel_bytes(w.format, k_all), block = block_tiles(product);
  for (int64_t tile = 0; tile < product.x.tiles(); tile += block) {
    const int64_t tile_end = std::min(tile + block, product.x.tiles());
    const int64_t row = tile * product.x.tile_height();
    const int64_t rows = std::min(tile_end * product.x.tile_height(), product.x.rows) - row;
    const int64_t acc_stride = rows * kPanel;
    const auto sums = [&](int64_t p) {
      return sums_of(product, path, p, row, scratch.acc + (p - panel_begin) * acc_stride);
    };
    for (int64_t k0 = 0; k0 < k_all; k0 += path.chunk) {
      const int64_t k = std::min(path.chunk, k_all - k0);
      for (int64_t p = panel_begin; p < panel_end; ++p) {
        Piece piece{path.panels + p * stride + panel_bytes(w.format, k0), packed_scales(w, p, k0)};
        if (path.panels == nullptr) {
          const bool last = p + 1 == panel_end, ends = last && k0 + k >= w.k;
          const LateWeight::Place next = ends   ? LateWeight::Place{scratch.next_panel, 0}
                                         : last ? LateWeight::Place{panel_begin, k0 + k}
                                                : LateWeight::Place{p + 1, k0};
          w.late->piece({p, k0}, k, scratch.copied, scratch.scales, next);
          piece.data = scratch.copied;
          if (w.format == PackedFormat::kInt8) piece.scales = scratch.scales;
        }
        piece.data = widen(w, path, piece.data, k, scratch.widened);
        multiply_piece(product, path, piece, k0, k, tile, tile_end, sums(p));
      }
    }
    for (int64_t p = panel_begin; p < panel_end; ++p) write_out(product, p, row, rows, sums(p));
  }
}

// Enough for any of them.
ScratchSizes scratch_sizes(std::span<const Product> products) {
  ScratchSizes most;
  for (const Product& product : products) {
    const ScratchSizes sizes = scratch_sizes(product);
    most.acc = std::max(most.acc, sizes.acc);
    most.widened = std::max(most.widened, sizes.widened);
    most.copied = std::max(most.copied, sizes.copied);
    most.scales = std::max(most.scales, sizes.scales);
  }
  return most;
}

// Panels of a group at most.
int64_t group_panels(const Product& product) {
  const PackedLinear& w = *product.weight;
  if (!path_of(product, panels_now(w)).by_tiles) return kGroupPanels;
  return std::clamp<int64_t>(kGroupBytes / panel_bytes(w.format, padded_k(w.k)), 1, kGroupPanels);
}

}  // namespace

size_t products_bytes(std::span<const Product> products, const tensor::Stream& stream) {
  return scratch_sizes(products).bytes() * static_cast<size_t>(stream.threads());
}

void run_products(std::span<const Product> products, std::byte* scratch, tensor::Stream& stream) {
  const ScratchSizes sizes = scratch_sizes(products);
  int64_t panels = 0, most = kGroupPanels;
  for (const Product& product : products) {
    panels += panels_of(product.weight->n);
    most = std::min(most, group_panels(product));
  }
  // Enough groups for the threads to share evenly, but no more: each reads all packed rows.
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
    std::byte* mine = scratch + static_cast<size_t>(thread) * sizes.bytes();
    const int64_t begin = group * width;
    const ThreadScratch parts{.acc = reinterpret_cast<float*>(mine),
                              .widened = mine + sizes.acc,
                              .copied = mine + sizes.acc + sizes.widened,
                              .scales = reinterpret_cast<float*>(mine + sizes.acc + sizes.widened + sizes.copied),
                              .next_panel = begin + width * stream.threads()};
    run_group(*product, begin, std::min(begin + width, panels_of(product->weight->n)), parts);
  });
}

}  // namespace spillway::kernels::cpu
