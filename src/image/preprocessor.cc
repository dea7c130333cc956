#include "image/preprocessor.h"

#include <algorithm>

namespace spillway::image {
namespace {

constexpr int kLongSideMax = 16384;

// Pillow's convert("L").
int luma(const uint8_t* rgb) { return (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16; }

}  // namespace

Preprocessor::Preprocessor(const PreprocessorSettings& settings) : settings_(settings) {
  for (size_t c = 0; c < 3; ++c) {
    const double deviation = settings.normalize ? settings.deviation[c] : 1;
    scale_[c] = float(settings.rescale / deviation);
    shift_[c] = float(settings.normalize ? -settings.mean[c] / deviation : 0);
  }
}

Image Preprocessor::resized(const Image& image) const {
  if (!settings_.resize) return image;
  const int edge = settings_.shortest_edge;
  if (edge == 0) return resize(image, settings_.resize_width, settings_.resize_height, settings_.filter);
  // The long side is cut down to whole pixels, as the processors do.
  const bool portrait = image.width <= image.height;
  const int64_t longer = portrait ? image.height : image.width, shorter = portrait ? image.width : image.height;
  const int other = int(std::min<int64_t>(edge * longer / shorter, kLongSideMax));
  return portrait ? resize(image, edge, other, settings_.filter) : resize(image, other, edge, settings_.filter);
}

std::vector<float> Preprocessor::pixels(const Image& image) const {
  const Image sized = resized(image);
  const int channels = settings_.channels, height = settings_.height, width = settings_.width;
  std::vector<float> out(size_t(channels) * height * width);
  // Where the picture is smaller than the input it stands in black, before normalising.
  const int top = (sized.height - height) / 2, left = (sized.width - width) / 2;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const int from_y = y + top, from_x = x + left;
      const bool inside = from_y >= 0 && from_y < sized.height && from_x >= 0 && from_x < sized.width;
      const uint8_t* pixel = inside ? sized.rgb.data() + (size_t(from_y) * sized.width + from_x) * 3 : nullptr;
      for (int c = 0; c < channels; ++c) {
        const int value = pixel == nullptr ? 0 : channels == 1 ? luma(pixel) : pixel[c];
        out[(size_t(c) * height + y) * width + x] = float(value) * scale_[c] + shift_[c];
      }
    }
  }
  return out;
}

Result<std::vector<float>> Preprocessor::pixels(std::string_view file) const {
  SW_ASSIGN(const Image image, decode(file));
  return pixels(image);
}

}  // namespace spillway::image
