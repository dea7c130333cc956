// LateWeight: the CPU's weight that products take from the rows of a mapped checkpoint until its panels are made, which
// may be while they run. Both give the same bits, for the rows pass through the panels' layout on their way, quantised
// where the format is int8. Owned by the PackedLinear and by whoever packs it; pack() on one thread, panels() and
// piece() on any. Not its job: when to pack, and that the checkpoint stays mapped meanwhile (pack_store.h's PackLater).
#pragma once

#include <atomic>
#include <cstddef>
#include <span>
#include <vector>

#include "kernels/linear.h"

namespace spillway::kernels {

class LateWeight {
 public:
  struct Rows {
    tensor::DType dtype;  // as stored: the format's, or any for kInt8
    int64_t k = 0;
    std::vector<const std::byte*> data;  // of each output, padded with nulls to whole panels
  };
  // scales: as packed, or empty; of kInt8 pack() fills them. sources: the mapped bytes that rows point into.
  LateWeight(Rows rows, PackedFormat format, tensor::Tensor scales, std::vector<tensor::TensorView> sources);

  // Null until they are there.
  const std::byte* panels() const { return panels_.load(std::memory_order_acquire); }
  // Where in a panel; behind the last panel there is nothing.
  struct Place {
    int64_t panel = 0;
    int64_t k = 0;  // at the start of a group of kInt8
  };
  // `count` elements of K of a panel made from the rows, to out, while the piece at `next` is fetched. scales: the
  // pieces' of kInt8, otherwise not touched.
  void piece(Place place, int64_t count, std::byte* out, float* scales, Place next) const;

  // Of the panels, there or not.
  size_t bytes() const;

  const tensor::Tensor& scales() const { return scales_; }
  std::span<const tensor::TensorView> sources() const { return sources_; }

  // Makes the panels and lets products have them, and their scales. Returns their bytes, which stay as long as this.
  std::span<const std::byte> pack();

 private:
  // Of one panel the 32 pointers, some null past the last output; behind the last panel: null.
  const std::byte* const* rows(int64_t panel) const;

  const Rows rows_;
  const PackedFormat format_;
  const tensor::Tensor scales_;
  const std::vector<tensor::TensorView> sources_;
  tensor::Tensor data_;
  std::atomic<const std::byte*> panels_{nullptr};
};

}  // namespace spillway::kernels
