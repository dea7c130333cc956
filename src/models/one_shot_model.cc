#include "models/one_shot_model.h"

#include <fmt/format.h>

#include <algorithm>

namespace spillway::models {
namespace {

Status check_tokens(const OneShotInfo& info, const OneShotInput& input) {
  if (input.tokens.empty() || int64_t(input.tokens.size()) > info.tokens_max)
    return invalid(fmt::format("expected 1 to {} tokens, found {}", info.tokens_max, input.tokens.size()));
  if (!input.types.empty() && input.types.size() != input.tokens.size()) {
    return invalid(
        fmt::format("expected as many token types as tokens, {}, found {}", input.tokens.size(), input.types.size()));
  }
  for (const int32_t id : input.tokens) {
    if (id < 0 || id >= info.vocab_size)
      return invalid(fmt::format("expected token ids in [0, {}), found {}", info.vocab_size, id));
  }
  const int types = std::max(1, info.type_vocab_size);
  for (const int32_t type : input.types) {
    if (type < 0 || (type >= types && info.type_vocab_size > 1))
      return invalid(fmt::format("expected token types in [0, {}), found {}", types, type));
  }
  return {};
}

Status check_pixels(const OneShotInfo& info, const OneShotInput& input) {
  const int height = input.height > 0 ? input.height : info.height;
  const int width = input.width > 0 ? input.width : info.width;
  const int64_t expected = int64_t(info.channels) * height * width;
  if (int64_t(input.pixels.size()) != expected) {
    return invalid(fmt::format("expected {} pixel values ({} channels of {} x {}), found {}", expected, info.channels,
                               height, width, input.pixels.size()));
  }
  if (height > info.height || width > info.width) {
    return invalid(fmt::format("expected an image of at most {} x {} pixels, found {} x {}", info.height, info.width,
                               height, width));
  }
  return {};
}

}  // namespace

Status check_input(const OneShotInfo& info, const OneShotInput& input) {
  if (std::find(info.outputs.begin(), info.outputs.end(), input.output) == info.outputs.end())
    return unsupported(fmt::format("{} does not give the output that was asked for", info.architecture));
  return info.vision ? check_pixels(info, input) : check_tokens(info, input);
}

}  // namespace spillway::models
