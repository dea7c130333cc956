// Image: 8-bit RGB pixels in rows from the top, and the decoding of JPEG and PNG files into them. Files are strangers':
// their size is checked before anything is allocated. Plain values, any thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::image {

struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> rgb;  // height x width x 3
};

struct DecodeLimits {
  int side_max = 16384;
  int64_t pixels_max = int64_t{64} << 20;
};

// What the bytes begin as decides. Gray becomes RGB, transparency is dropped and CMYK converted, as Pillow's
// convert("RGB") does. The orientation of Exif is not applied.
Result<Image> decode(std::string_view bytes, const DecodeLimits& limits = {});

Result<Image> decode_jpeg(std::string_view bytes, const DecodeLimits& limits);
Result<Image> decode_png(std::string_view bytes, const DecodeLimits& limits);
Status check_size(int64_t width, int64_t height, const DecodeLimits& limits);

}  // namespace spillway::image
