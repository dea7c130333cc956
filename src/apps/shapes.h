// Named shapes: config.json of published models, so that --random-weights can build them without their files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spillway::apps {

struct Shape {
  std::string_view name;    // "qwen2.5-1.5b"
  std::string_view config;  // config.json
};

const std::vector<Shape>& shapes();
const Shape* find_shape(std::string_view name);
std::string shape_names();  // "qwen2.5-0.5b, qwen2.5-1.5b, ..."

}  // namespace spillway::apps
