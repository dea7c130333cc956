#include "models/image_config.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <cmath>
#include <filesystem>

#include "models/config_reader.h"
#include "models/model_folder.h"

namespace spillway::models {
namespace {

namespace json = boost::json;

constexpr int64_t kEdgeMax = 1 << 14;

// {"height", "width"}, {"shortest_edge"}, or one number.
struct Size {
  int height = 0, width = 0, shortest_edge = 0;
};

Size read_size(ConfigReader& reader, const json::object& object, const char* key, bool number_is_edge) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return {};
  if (value->is_number()) {
    const int edge = int(reader.integer(key, 1, kEdgeMax));
    return number_is_edge ? Size{0, 0, edge} : Size{edge, edge, 0};
  }
  const json::object* size = reader.object_or_null(key);
  if (size == nullptr) return {};
  ConfigReader inner(*size, fmt::format("preprocessor_config.json: {}", key));
  Size read;
  if (inner.has("shortest_edge")) {
    read.shortest_edge = int(inner.integer("shortest_edge", 1, kEdgeMax));
  } else {
    read.height = int(inner.integer("height", 1, kEdgeMax));
    read.width = int(inner.integer("width", 1, kEdgeMax));
  }
  if (!inner.status().ok()) reader.fail(inner.status().error().message);
  return read;
}

// Three numbers, or one for a grey picture.
void read_channels(ConfigReader& reader, const json::object& object, const char* key, std::array<double, 3>& out,
                   int& channels) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return;
  const size_t count = value->is_array() ? value->as_array().size() : 0;
  if (count != 1 && count != 3) return reader.fail(fmt::format("{}: expected 1 or 3 numbers, found {}", key, count));
  channels = int(count);
  for (size_t i = 0; i < count; ++i) {
    const json::value& number = value->as_array()[i];
    if (!number.is_number() || !std::isfinite(number.to_number<double>()))
      return reader.fail(fmt::format("{}: expected numbers", key));
    out[i] = number.to_number<double>();
  }
}

// PIL's numbers.
ImageConfig::Filter read_filter(ConfigReader& reader) {
  switch (reader.integer_or("resample", 2, 0, 5)) {
    case 0:
      return ImageConfig::Filter::kNearest;
    case 1:
      return ImageConfig::Filter::kLanczos;
    case 3:
      return ImageConfig::Filter::kBicubic;
    case 2:
      return ImageConfig::Filter::kBilinear;
    default:
      reader.fail("resample: expected 0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)");
  }
  return ImageConfig::Filter::kBilinear;
}

void apply_size(ConfigReader& reader, const json::object& object, ImageConfig& config) {
  const bool convnext = object.contains("crop_pct") && !object.contains("crop_size");
  const Size size = read_size(reader, object, "size", convnext);
  if (size.shortest_edge > 0) config.shortest_edge = size.shortest_edge;
  if (size.height > 0) {
    config.resize_height = size.height;
    config.resize_width = size.width;
  }
  const Size crop = read_size(reader, object, "crop_size", false);
  if (crop.height > 0) {
    config.crop_height = crop.height;
    config.crop_width = crop.width;
  }
  config.center_crop = reader.boolean_or("do_center_crop", false);
  // ConvNextImageProcessor, which ResNet checkpoints name: below 384 the short edge becomes size / crop_pct, and the
  // middle is cut out; from 384 on the picture is squeezed to a square.
  if (!convnext || config.shortest_edge == 0) return;
  const int edge = config.shortest_edge;
  const double part = reader.number_or("crop_pct", 224.0 / 256);
  if (part <= 0 || part > 1) return reader.fail("crop_pct: expected a number in (0, 1]");
  config.center_crop = edge < 384;
  config.crop_height = config.crop_width = config.resize_height = config.resize_width = edge;
  config.shortest_edge = edge < 384 ? int(edge / part) : 0;
}

}  // namespace

Result<ImageConfig> read_image_config(const std::string& folder) {
  ImageConfig config;
  const std::string path = folder + "/preprocessor_config.json";
  if (!std::filesystem::exists(path)) return config;
  SW_ASSIGN(const auto object, read_config(path));
  ConfigReader reader(*object, "preprocessor_config.json");
  config.resize = reader.boolean_or("do_resize", true);
  config.filter = read_filter(reader);
  apply_size(reader, *object, config);
  if (reader.boolean_or("do_rescale", true)) {
    config.rescale = reader.number_or("rescale_factor", 1.0 / 255);
  } else {
    config.rescale = 1;
  }
  config.normalize = reader.boolean_or("do_normalize", true);
  read_channels(reader, *object, "image_mean", config.mean, config.channels);
  read_channels(reader, *object, "image_std", config.deviation, config.channels);
  for (int i = 0; i < config.channels; ++i) {
    if (config.deviation[size_t(i)] <= 0) reader.fail("image_std: expected numbers above 0");
  }
  SW_TRY(reader.status());
  return config;
}

}  // namespace spillway::models
