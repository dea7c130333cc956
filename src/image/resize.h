// Resampling as Pillow does it: filters widened when an image shrinks (antialiasing), weights in fixed point, rows
// first and then columns with 8 bits between. Bit for bit the same as Pillow up to 12, because models were trained on those bits
// (13 takes columns first at times).
#pragma once

#include "image/image.h"

namespace spillway::image {

// Pillow's numbers, which preprocessor_config.json uses.
enum class Filter { kNearest = 0, kLanczos = 1, kBilinear = 2, kBicubic = 3, kBox = 4, kHamming = 5 };

Image resize(const Image& from, int width, int height, Filter filter);

}  // namespace spillway::image
