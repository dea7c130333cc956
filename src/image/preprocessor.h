// Preprocessor: from an image file to the pixels a vision model takes, as Hugging Face's image processors do it:
// resize, cut out the middle, scale, normalise. Immutable; any thread. Not its job: reading preprocessor_config.json.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "image/image.h"
#include "image/resize.h"

namespace spillway::image {

struct PreprocessorSettings {
  bool resize = true;
  int shortest_edge = 0;  // resized to it, keeping the shape; 0: to resize_height x resize_width
  int resize_height = 224, resize_width = 224;
  Filter filter = Filter::kBilinear;
  double rescale = 1 / 255.0;
  bool normalize = true;
  std::array<double, 3> mean = {0.485, 0.456, 0.406};
  std::array<double, 3> deviation = {0.229, 0.224, 0.225};
  int channels = 3;               // 1: grey
  int height = 224, width = 224;  // of the model's input: the middle of the resized picture
};

class Preprocessor {
 public:
  explicit Preprocessor(const PreprocessorSettings& settings);

  // Float32 [channels, height, width].
  Result<std::vector<float>> pixels(std::string_view file) const;
  std::vector<float> pixels(const Image& image) const;

 private:
  Image resized(const Image& image) const;

  PreprocessorSettings settings_;
  std::array<float, 3> scale_{}, shift_{};  // of a byte: value * scale + shift
};

}  // namespace spillway::image
