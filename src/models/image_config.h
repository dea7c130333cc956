// ImageConfig: how a picture becomes the pixels that a vision model was trained on, as preprocessor_config.json says.
// Values; any thread. Not its job: decoding and resizing, which the server does.
#pragma once

#include <array>
#include <string>

#include "base/result.h"

namespace spillway::models {

struct ImageConfig {
  enum class Filter { kNearest, kBilinear, kBicubic, kLanczos };

  bool resize = true;
  int shortest_edge = 0;  // resized to it, keeping the shape; 0: to resize_height x resize_width
  int resize_height = 224, resize_width = 224;
  Filter filter = Filter::kBilinear;
  bool center_crop = false;
  int crop_height = 224, crop_width = 224;
  double rescale = 1.0 / 255;  // times each byte
  bool normalize = true;       // (x - mean) / deviation by channel
  std::array<double, 3> mean = {0.485, 0.456, 0.406};
  std::array<double, 3> deviation = {0.229, 0.224, 0.225};
  int channels = 3;  // 1: grey

  // Of the pixels that the model is given; with shortest_edge and no crop those of a square picture.
  int height() const { return center_crop ? crop_height : shortest_edge > 0 ? shortest_edge : resize_height; }
  int width() const { return center_crop ? crop_width : shortest_edge > 0 ? shortest_edge : resize_width; }
};

// A folder without the file: the defaults above, which are ImageNet's.
Result<ImageConfig> read_image_config(const std::string& folder);

}  // namespace spillway::models
