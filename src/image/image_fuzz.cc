// Any bytes as an image file: an error or pixels of the size they say.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "image/preprocessor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::image;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const DecodeLimits limits{.side_max = 512, .pixels_max = 1 << 16};
  const auto image = decode(bytes, limits);
  if (image.ok()) {
    if (image->rgb.size() != size_t(image->width) * image->height * 3) std::abort();
    static const Preprocessor preprocessor({.shortest_edge = 18, .height = 16, .width = 16});
    if (preprocessor.pixels(*image).size() != 3 * 16 * 16) std::abort();
  } else if (image.error().message.empty()) {
    std::abort();
  }
  return 0;
}
