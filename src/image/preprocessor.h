// Preprocessor: from an image file to the pixels a vision model takes, as the checkpoint's preprocessor_config.json says
// and Hugging Face's image processors do it: resize, centre crop, scale, normalise. Immutable; any thread.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/image.h"
#include "image/resize.h"

namespace spillway::image {

class Preprocessor {
 public:
  // json: the bytes of preprocessor_config.json; empty: resize to the model's size, ImageNet's mean and deviation.
  // channels, height, width: the model's input, which the settings have to lead to.
  static Result<Preprocessor> make(std::string_view json, int channels, int height, int width);

  // Float32 [channels, height, width].
  Result<std::vector<float>> pixels(std::string_view file) const;
  std::vector<float> pixels(const Image& image) const;

  int channels() const { return channels_; }
  int height() const { return height_; }
  int width() const { return width_; }

 private:
  Image resized(const Image& image) const;

  int channels_ = 3, height_ = 224, width_ = 224;
  bool resize_ = true;
  int shortest_edge_ = 0;                     // 0: to exactly resize_height_ x resize_width_
  int resize_height_ = 224, resize_width_ = 224;
  Filter filter_ = Filter::kBilinear;
  std::array<float, 3> scale_{}, shift_{};    // of a byte: value * scale + shift
};

}  // namespace spillway::image
