// Activation: the pointwise functions that follow a product or a convolution. Plain: also read by the translation units
// of the instruction sets.
#pragma once

#include <cstdint>

namespace spillway::kernels {

enum class Activation : uint8_t { kNone, kGelu, kGeluTanh, kRelu, kSilu, kTanh };

}  // namespace spillway::kernels
