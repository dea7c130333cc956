#include "image/preprocessor.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <optional>

namespace spillway::image {
namespace {

namespace json = boost::json;

constexpr int kSideMax = 4096;

struct Settings {
  const json::object& object;

  const json::value* find(std::string_view key) const {
    const json::value* value = object.if_contains(key);
    return value != nullptr && !value->is_null() ? value : nullptr;
  }
  bool boolean(std::string_view key, bool otherwise) const {
    const json::value* value = find(key);
    return value != nullptr && value->is_bool() ? value->get_bool() : otherwise;
  }
  double number(std::string_view key, double otherwise) const {
    const json::value* value = find(key);
    return value != nullptr && value->is_number() ? value->to_number<double>() : otherwise;
  }
};

struct Size {
  int shortest_edge = 0, height = 0, width = 0;
};

// 224, {"shortest_edge": 224} or {"height": 224, "width": 224}.
Result<Size> read_size(const Settings& settings, std::string_view key, Size otherwise) {
  const json::value* value = settings.find(key);
  if (value == nullptr) return otherwise;
  const auto side = [](const json::value* v) -> int {
    const double found = v != nullptr && v->is_number() ? v->to_number<double>() : 0;
    return found >= 1 && found <= kSideMax ? int(found) : 0;
  };
  Size size;
  if (value->is_number()) {
    size.shortest_edge = side(value);
  } else if (value->is_object()) {
    const json::object& object = value->get_object();
    size = {side(object.if_contains("shortest_edge")), side(object.if_contains("height")),
            side(object.if_contains("width"))};
  }
  if (size.shortest_edge > 0 || (size.height > 0 && size.width > 0)) return size;
  return corrupt(fmt::format("preprocessor_config.json: {}: expected a side, shortest_edge, or height and width, each "
                             "from 1 to {}, found {}",
                             key, kSideMax, json::serialize(*value)));
}

Result<std::array<double, 3>> read_triple(const Settings& settings, std::string_view key, std::array<double, 3> out) {
  const json::value* value = settings.find(key);
  if (value == nullptr) return out;
  const json::array* items = value->if_array();
  if (items == nullptr || (items->size() != 1 && items->size() != 3)) {
    return corrupt(fmt::format("preprocessor_config.json: {}: expected 1 or 3 numbers", key));
  }
  for (size_t c = 0; c < 3; ++c) {
    const json::value& item = (*items)[items->size() == 1 ? 0 : c];
    if (!item.is_number()) return corrupt(fmt::format("preprocessor_config.json: {}: expected numbers", key));
    out[c] = item.to_number<double>();
  }
  return out;
}

}  // namespace

Result<Preprocessor> Preprocessor::make(std::string_view bytes, int channels, int height, int width) {
  if (channels != 1 && channels != 3) return unsupported(fmt::format("vision: {} channels, not 1 or 3", channels));
  json::error_code error;
  json::value parsed = bytes.empty() ? json::value(json::object()) : json::parse(bytes, error);
  if (error || !parsed.is_object()) return corrupt("preprocessor_config.json: expected a JSON object");
  const Settings settings{parsed.get_object()};

  Preprocessor out;
  out.channels_ = channels;
  out.height_ = height;
  out.width_ = width;
  out.resize_ = settings.boolean("do_resize", true);
  SW_ASSIGN(Size size, read_size(settings, "size", Size{0, height, width}));
  // ConvNext's processor, which ResNets have: below 384 the edge is size / crop_pct, and the middle is cut out.
  const bool convnext = settings.find("crop_pct") != nullptr;
  const double crop_pct = settings.number("crop_pct", 0.875);
  if (convnext && size.shortest_edge > 0) {
    if (crop_pct <= 0 || crop_pct > 1) return corrupt("preprocessor_config.json: crop_pct: expected a share");
    if (size.shortest_edge < 384) {
      size.shortest_edge = int(size.shortest_edge / crop_pct);
    } else {
      size = {0, size.shortest_edge, size.shortest_edge};
    }
  }
  out.shortest_edge_ = size.shortest_edge;
  out.resize_height_ = size.height;
  out.resize_width_ = size.width;
  const int resample = int(settings.number("resample", 2));
  if (resample < 0 || resample > 5) {
    return corrupt(fmt::format("preprocessor_config.json: resample: expected 0 to 5, found {}", resample));
  }
  out.filter_ = Filter(resample);
  const bool crops = convnext || settings.boolean("do_center_crop", false);
  if (crops && !convnext) {
    SW_ASSIGN(const Size crop, read_size(settings, "crop_size", Size{0, height, width}));
    const int crop_height = crop.shortest_edge > 0 ? crop.shortest_edge : crop.height;
    const int crop_width = crop.shortest_edge > 0 ? crop.shortest_edge : crop.width;
    if (crop_height != height || crop_width != width) {
      return unsupported(fmt::format("preprocessor_config.json: crop_size: expected the model's {} x {}, found {} x {}",
                                     height, width, crop_height, crop_width));
    }
  }
  // Without a crop and with an edge, the picture's shape would leak into the model's input: it is cut to the middle.
  const double rescale = settings.boolean("do_rescale", true) ? settings.number("rescale_factor", 1 / 255.0) : 1;
  SW_ASSIGN(auto mean, read_triple(settings, "image_mean", {0.485, 0.456, 0.406}));
  SW_ASSIGN(auto deviation, read_triple(settings, "image_std", {0.229, 0.224, 0.225}));
  const bool normalize = settings.boolean("do_normalize", true);
  for (size_t c = 0; c < 3; ++c) {
    if (!(deviation[c] > 0)) return corrupt("preprocessor_config.json: image_std: expected numbers above 0");
    out.scale_[c] = float(normalize ? rescale / deviation[c] : rescale);
    out.shift_[c] = float(normalize ? -mean[c] / deviation[c] : 0);
  }
  return out;
}

Image Preprocessor::resized(const Image& image) const {
  if (!resize_) return image;
  if (shortest_edge_ == 0) return resize(image, resize_width_, resize_height_, filter_);
  // The long side is cut down to whole pixels, as the processors do.
  const bool portrait = image.width <= image.height;
  const int64_t longer = int64_t(shortest_edge_) * (portrait ? image.height : image.width) /
                         std::max(1, portrait ? image.width : image.height);
  const int other = int(std::min<int64_t>(longer, 4 * kSideMax));
  return portrait ? resize(image, shortest_edge_, other, filter_) : resize(image, other, shortest_edge_, filter_);
}

std::vector<float> Preprocessor::pixels(const Image& image) const {
  const Image sized = resized(image);
  std::vector<float> out(size_t(channels_) * height_ * width_);
  // The middle; where the picture is smaller it is surrounded by black before normalising.
  const int top = (sized.height - height_) / 2, left = (sized.width - width_) / 2;
  for (int y = 0; y < height_; ++y) {
    for (int x = 0; x < width_; ++x) {
      const int from_y = y + top, from_x = x + left;
      const bool inside = from_y >= 0 && from_y < sized.height && from_x >= 0 && from_x < sized.width;
      const uint8_t* pixel = inside ? sized.rgb.data() + (size_t(from_y) * sized.width + from_x) * 3 : nullptr;
      for (int c = 0; c < channels_; ++c) {
        int value = pixel != nullptr ? pixel[c] : 0;
        // Pillow's luma of convert("L").
        if (channels_ == 1 && pixel != nullptr)
          value = (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16;
        out[(size_t(c) * height_ + y) * width_ + x] = float(value) * scale_[c] + shift_[c];
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
