// Lists of models as stores keep them: one a line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spillway::gateway {

inline std::string join_models(const std::vector<std::string>& models) {
  std::string text;
  for (const std::string& model : models) text += model + "\n";
  return text;
}

inline std::vector<std::string> split_models(std::string_view text) {
  std::vector<std::string> models;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end != 0) models.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return models;
}

}  // namespace spillway::gateway
