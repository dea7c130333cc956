#include "image/image.h"

#include <fmt/format.h>

namespace spillway::image {

Result<Image> decode(std::string_view bytes, const DecodeLimits& limits) {
  if (bytes.starts_with("\xFF\xD8\xFF")) return decode_jpeg(bytes, limits);
  if (bytes.starts_with("\x89PNG\r\n\x1A\n")) return decode_png(bytes, limits);
  std::string start;
  for (const char c : bytes.substr(0, 8)) start += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return invalid(fmt::format("image: expected a JPEG or PNG file, found {} bytes that begin with {}", bytes.size(),
                             start.empty() ? "nothing" : start));
}

Status check_size(int64_t width, int64_t height, const DecodeLimits& limits) {
  if (width < 1 || height < 1) return corrupt(fmt::format("image: expected pixels, found {} x {}", width, height));
  if (width > limits.side_max || height > limits.side_max || width * height > limits.pixels_max) {
    return invalid(fmt::format("image: expected at most {} pixels and {} a side, found {} x {}", limits.pixels_max,
                               limits.side_max, width, height));
  }
  return {};
}

}  // namespace spillway::image
