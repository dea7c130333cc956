// Quantising rows of weights into int8 panels (packing.h), by groups of K that share a scale.
#pragma once

#include "kernels/cpu/panel_copy.h"
#include "kernels/cpu/weight_rows.h"

namespace spillway::kernels::cpu {

struct Int8Packing {
  int64_t group = kInt8Group;
  const float* smooth = nullptr;  // [K] that columns are multiplied with, or null
  bool with_sums = false;         // behind the scales of each group the sums of its integers (W8A8)
};

// Elements [begin, end) of K of a panel's rows, begin at the start of a group: the panel's bytes from there to out, and
// its groups' scales.
void pack_int8(const PanelRows& rows, const Int8Packing& packing, int64_t begin, int64_t end, std::byte* out,
               float* scales, const NextRows& next = {});

}  // namespace spillway::kernels::cpu
