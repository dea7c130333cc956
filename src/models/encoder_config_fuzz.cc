// Any bytes as the config.json of a one-shot model: a parsed configuration or an error, never a crash.
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "models/encoder_config.h"
#include "models/one_shot_loader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::models;
  boost::json::error_code error;
  const auto root = boost::json::parse(std::string_view(reinterpret_cast<const char*>(data), size), error);
  if (error || !root.is_object() || !is_one_shot(root.as_object())) return 0;
  const auto config = parse_encoder_config(root.as_object());
  if (!config.ok()) return 0;
  SW_CHECK(config->layer.heads * (config->layer.hidden / config->layer.heads) == config->layer.hidden, "heads");
  SW_CHECK(config->tokens_max > 0, "tokens");
  return 0;
}
