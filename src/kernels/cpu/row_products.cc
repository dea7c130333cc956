#include "kernels/cpu/row_products.h"

#include <algorithm>
#include <utility>

#include "kernels/cpu/packing.h"

namespace spillway::kernels::cpu {
namespace {

constexpr int64_t kGroupPanels = 4;
constexpr int64_t kStreamedPanels = 16;  // of a group that one tile of x reads from memory
// One row of x takes rows of weights up to this size one by one; above, x does not stay in the first cache beside them.
constexpr int64_t kOneByOneBytes = 8 << 10;
constexpr int64_t kGroupBytes = 512 << 10;  // of panels, beside which a tile of x fits the second cache
// Up to so many tiles of x pass over four columns of weights at a time, which the first reads from memory and the
// others from the first cache.
constexpr int64_t kFewTiles = 4;
constexpr int64_t kLine = 64;
// The next group is fetched by the last tiles of this one, or it would have left the second cache again: two lines a
// step are a group in two tiles.
constexpr int64_t kFetchingTiles = 3;
constexpr int64_t kFetchAhead = 64 << 10;  // bytes of weights that are read where they are

int64_t stored_bytes(PackedFormat format) { return panel_bytes(format, 4) / (4 * kPanel); }

// How one product's weights are brought to a kernel.
struct Path {
  void (*multiply)(const RowProduct&) = nullptr;
  void (*gather)(const RowGather&) = nullptr;  // null: read where they are
  int64_t element = 0;                         // bytes of a weight as multiply() sees it
  bool half = false;                           // x in bf16
  bool round = false;                          // x in float32, rounded to bf16
};

const RowKernels& kernels_of(PackedFormat format) {
  const KernelTable& table = kernel_table();
  switch (format) {
    case PackedFormat::kF32:
      return table.rows_of_f32;
    case PackedFormat::kF16:
      return table.rows_of_f16;
    case PackedFormat::kBf16:
      return table.rows_of_bf16;
    case PackedFormat::kF8:
      return table.rows_of_f8;
    case PackedFormat::kInt8:
    case PackedFormat::kInt4:
      break;
  }
  SW_CHECK(false, "integers do not lie in rows");
}

Path path_of(const Product& product) {
  const PackedLinear& w = *product.weight;
  const KernelTable& table = kernel_table();
  const int64_t tiles = tiles_of(product.x);
  Path path;
  path.half = w.precision == Precision::kBf16 && table.native_bf16;
  path.round = w.precision == Precision::kBf16 && !table.native_bf16;
  const bool f8 = w.format == PackedFormat::kF8;
  const RowKernels& kernels = !path.half ? kernels_of(w.format) : f8 ? table.bf16_rows_of_f8 : table.bf16_rows;
  const bool widens = path.half ? f8 : w.format != PackedFormat::kF32;
  const bool direct = !widens ? tiles <= kFewTiles : path.half ? product.x.rows <= table.f8_rows_max : tiles == 1;
  if (direct) {
    path.multiply = kernels.multiply;
    path.element = stored_bytes(w.format);
    return path;
  }
  path.gather = kernels.gather;
  path.multiply = (path.half ? table.bf16_rows : table.rows_of_f32).multiply;
  path.element = path.half ? 2 : 4;
  return path;
}

int64_t padded_steps(int64_t k) { return (k + kRowStep - 1) / kRowStep * kRowStep; }

// What a thread's scratch holds, one after another.
struct Scratch {
  size_t sums = 0;      // float [rows][kPanel]
  size_t gathered = 0;  // panels
  size_t scaled = 0;    // a tile of x times the scales
  size_t by = 0;        // float [padded_rows_k]: the scales, one for each element of K

  size_t bytes() const { return sums + gathered + scaled + by; }
};

Scratch scratch_of(const Product& product, const Path& path) {
  const auto rounded = [](int64_t bytes) { return static_cast<size_t>((bytes + 63) / 64 * 64); };
  const int64_t k = product.weight->k;
  Scratch scratch;
  scratch.sums = rounded((path.gather == nullptr ? product.x.rows : kRowsTile) * kPanel * 4);
  if (path.gather != nullptr) {
    scratch.gathered = rounded(row_group_panels(product) * kPanel * padded_steps(k) * path.element);
  }
  if (product.x.format == RowFormat::kScaled) {
    scratch.scaled = rounded(kRowsTile * padded_rows_k(k) * 4);
    scratch.by = rounded(padded_rows_k(k) * 4);
  }
  return scratch;
}

// One group of panels on one thread.
class Group {
 public:
  Group(const Product& product, std::byte* scratch)
      : product_(product), w_(*product.weight), path_(path_of(product)), stored_row_(w_.k * stored_bytes(w_.format)) {
    const Scratch sizes = scratch_of(product, path_);
    sums_ = reinterpret_cast<float*>(scratch);
    gathered_ = scratch + sizes.sums;
    scaled_ = gathered_ + sizes.gathered;
    by_ = reinterpret_cast<float*>(scaled_ + sizes.scaled);
  }

  // next: what this thread is likely to be given after these.
  void run(std::span<const RowPanel> panels, std::span<const RowPanel> next) {
    while (!panels.empty()) {
      const auto [now, rest] = split(panels);
      if (path_.gather == nullptr) {
        run_in_place(now);
      } else {
        const auto then = split(rest.empty() ? next : rest).first;
        RowFetch fetch{.at = nullptr, .end = nullptr, .even = false};
        if (!then.empty()) {
          fetch.at = bytes_of(then.front());
          fetch.end = std::max(fetch.at, bytes_of(then.back()) + then.back().width * stored_row_);
          fetch.end = std::min(fetch.end, fetch.at + int64_t(then.size()) * kPanel * stored_row_);
        }
        run_gathered(now, fetch);
      }
      panels = rest;
    }
  }

 private:
  static const char* bytes_of(const RowPanel& panel) { return reinterpret_cast<const char*>(panel.data); }

  // The first panels that are done together, one after another in memory or of the same scales, and the others.
  std::pair<std::span<const RowPanel>, std::span<const RowPanel>> split(std::span<const RowPanel> panels) const {
    size_t count = panels.empty() ? 0 : 1;
    for (; count > 0 && count < panels.size(); ++count) {
      const RowPanel &before = panels[count - 1], &next = panels[count];
      if (path_.gather == nullptr ? next.data != before.data + before.width * stored_row_
                                  : next.scales != before.scales) {
        break;
      }
    }
    return {panels.first(count), panels.subspan(count)};
  }

  int64_t height() const { return tile_height(product_.x); }
  int64_t tile_rows(int64_t tile) const { return std::min(height(), product_.x.rows - tile * height()); }

  void expand_scales(const float* scales) {
    if (scales == expanded_) return;
    expanded_ = scales;
    for (int64_t begin = 0; begin < w_.k; begin += w_.scale_block) {
      std::fill(by_ + begin, by_ + std::min(begin + w_.scale_block, w_.k), scales[begin / w_.scale_block]);
    }
    std::fill(by_ + w_.k, by_ + padded_rows_k(w_.k), 0.0f);
    scaled_tile_ = -1;
  }

  // The tile as multiply() takes it.
  const void* tile_of_x(int64_t tile, const float* scales) {
    const PackedRows& x = product_.x;
    if (x.format != RowFormat::kScaled) {
      return x.data + tile * height() * padded_rows_k(w_.k) * row_element_bytes(x.format);
    }
    expand_scales(scales);
    if (scaled_tile_ == tile) return scaled_;
    scaled_tile_ = tile;
    const float* rows[kRowsTile];
    const auto count = static_cast<int>(tile_rows(tile));
    for (int r = 0; r < count; ++r) rows[r] = reinterpret_cast<const float*>(x.data) + (tile * height() + r) * w_.k;
    if (path_.half) {
      kernel_table().pack_rows_bf16(rows, count, w_.k, by_, reinterpret_cast<uint16_t*>(scaled_));
    } else {
      kernel_table().pack_rows(rows, count, w_.k, by_, path_.round, reinterpret_cast<float*>(scaled_));
    }
    return scaled_;
  }

  void run_in_place(std::span<const RowPanel> panels) {
    const char *begin = bytes_of(panels.front()), *end = bytes_of(panels.back()) + panels.back().width * stored_row_;
    const int64_t tiles = tiles_of(product_.x);
    const bool one_by_one = product_.x.rows == 1 && stored_row_ <= kOneByOneBytes && path_.element > 1;
    RowFetch fetch{.at = std::min(begin + kFetchAhead, end), .end = end, .even = tiles == 1};
    for (const char* p = begin; p < fetch.at && !one_by_one; p += kLine) __builtin_prefetch(p, 0, 2);
    for (const RowPanel& panel : panels) {
      // One tile takes all columns; of several, each takes four while they are in the first cache.
      const int columns = tiles == 1 ? panel.width : 4;
      for (int c = 0; c < panel.width; c += columns) {
        if (tiles > 1) fetch.end = std::min(bytes_of(panel) + (c + 4) * stored_row_ + kFetchAhead, end);
        for (int64_t tile = 0; tile < tiles; ++tile) {
          RowProduct t;
          t.x = tile_of_x(tile, panel.scales);
          t.rows = static_cast<int>(tile_rows(tile));
          t.w = bytes_of(panel) + c * stored_row_;
          t.columns = std::min(columns, panel.width - c);
          t.k = w_.k;
          t.w_row = stored_row_;
          t.w_step = kRowStep * path_.element;
          t.w_four = 4 * stored_row_;
          t.fetch = &fetch;
          t.one_by_one = one_by_one;
          t.sums = sums_ + tile * height() * kPanel + c;
          path_.multiply(t);
        }
      }
      write_out(panel, 0, product_.x.rows);
    }
  }

  void run_gathered(std::span<const RowPanel> panels, RowFetch fetch) {
    const int64_t k = padded_steps(w_.k), panel_bytes = kPanel * k * path_.element;
    for (size_t p = 0; p < panels.size(); ++p) {
      RowGather gather;
      gather.w = bytes_of(panels[p]);
      gather.w_row = stored_row_;
      gather.count = panels[p].width;
      gather.k = w_.k;
      gather.out = gathered_ + int64_t(p) * panel_bytes;
      path_.gather(gather);
    }
    for (int64_t tile = 0; tile < tiles_of(product_.x); ++tile) {
      RowProduct t;
      t.x = tile_of_x(tile, panels[0].scales);
      t.rows = static_cast<int>(tile_rows(tile));
      t.k = k;
      t.w_row = kRowStep * path_.element;
      t.w_step = 4 * t.w_row;
      t.w_four = 4 * k * path_.element;
      t.fetch = tile + kFetchingTiles >= tiles_of(product_.x) ? &fetch : nullptr;
      t.sums = sums_;
      for (size_t p = 0; p < panels.size(); ++p) {
        t.w = reinterpret_cast<const char*>(gathered_ + int64_t(p) * panel_bytes);
        t.columns = panels[p].width;
        const float* y = product_.y + tile * height() * product_.y_stride + panels[p].first;
        for (int r = 0; r < t.rows; ++r) {
          __builtin_prefetch(y + r * product_.y_stride, 1);
          __builtin_prefetch(y + r * product_.y_stride + kPanel / 2, 1);
        }
        path_.multiply(t);
        write_out(panels[p], tile * height(), t.rows);
      }
    }
  }

  void write_out(const RowPanel& panel, int64_t row, int64_t rows) {
    RowSums sums;
    sums.sums = sums_;
    sums.bias = product_.bias != nullptr ? product_.bias + panel.first : nullptr;
    sums.accumulate = product_.accumulate;
    sums.activation = product_.activation;
    sums.rows = rows;
    sums.width = panel.width;
    sums.y = product_.y + row * product_.y_stride + panel.first;
    sums.y_stride = product_.y_stride;
    kernel_table().finish_rows(sums);
  }

  const Product& product_;
  const PackedLinear& w_;
  const Path path_;
  const int64_t stored_row_;  // bytes
  float* sums_;
  std::byte* gathered_;
  std::byte* scaled_;
  float* by_;
  const float* expanded_ = nullptr;  // what by_ holds
  int64_t scaled_tile_ = -1;         // and scaled_
};

}  // namespace

int64_t row_group_panels(const Product& product) {
  const Path path = path_of(product);
  if (path.gather == nullptr) return tiles_of(product.x) == 1 ? kStreamedPanels : kGroupPanels;
  const int64_t panel = kPanel * padded_steps(product.weight->k) * path.element;
  return std::clamp<int64_t>(kGroupBytes / panel, 1, kGroupPanels);
}

size_t row_product_bytes(const Product& product) { return scratch_of(product, path_of(product)).bytes(); }

void run_row_group(const Product& product, const RowGroup& group, std::byte* scratch) {
  const std::span<const RowPanel> panels(product.weight->rows);
  const auto part = [&](int64_t begin) {
    const auto count = int64_t(panels.size());
    begin = std::min(begin, count);
    return panels.subspan(size_t(begin), size_t(std::min(group.panels, count - begin)));
  };
  Group(product, scratch).run(part(group.begin), part(group.begin + group.panels * group.threads));
}

}  // namespace spillway::kernels::cpu
