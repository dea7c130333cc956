// LateWeight: the CPU's weight that products take from the rows of a mapped checkpoint until its panels are made, which
// may be while they run. Both give the same bits, for the rows pass through the panels' layout on their way. Owned by
// the PackedLinear and by whoever packs it; pack() on one thread, panels() on any. Not its job: when to pack, and that
// the checkpoint stays mapped meanwhile (pack_store.h's PackLater).
#pragma once

#include <atomic>
#include <cstddef>
#include <span>
#include <vector>

#include "kernels/linear.h"

namespace spillway::kernels {

class LateWeight {
 public:
  // rows: of each output its K elements as the format has them, padded with nulls to whole panels. scales: as packed,
  // or empty. sources: the mapped bytes that rows point into.
  LateWeight(PackedFormat format, int64_t k, std::vector<const std::byte*> rows, tensor::Tensor scales,
             std::vector<tensor::TensorView> sources);

  // Null until they are there.
  const std::byte* panels() const { return panels_.load(std::memory_order_acquire); }
  // Of one panel the 32 pointers, some null past the last output; behind the last panel: null.
  const std::byte* const* rows(int64_t panel) const;

  // Of the panels, there or not.
  size_t bytes() const;

  const tensor::Tensor& scales() const { return scales_; }
  std::span<const tensor::TensorView> sources() const { return sources_; }

  // Makes the panels and lets products have them. Returns their bytes, which stay as long as this.
  std::span<const std::byte> pack();

 private:
  const PackedFormat format_;
  const int64_t k_;
  const std::vector<const std::byte*> rows_;
  const tensor::Tensor scales_;
  const std::vector<tensor::TensorView> sources_;
  tensor::Tensor data_;
  std::atomic<const std::byte*> panels_{nullptr};
};

}  // namespace spillway::kernels
