#include "models/resnet_config.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "models/config_reader.h"
#include "models/encoder_config.h"

namespace spillway::models {
namespace {

namespace json = boost::json;

std::vector<int> read_list(ConfigReader& reader, const json::object& object, const char* key) {
  std::vector<int> list;
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_array() || value->as_array().empty()) {
    reader.fail(fmt::format("{}: expected a list of integers", key));
    return list;
  }
  for (const json::value& item : value->as_array()) {
    const int64_t* number = item.if_int64();
    if (number == nullptr || *number < 1 || *number > (1 << 16)) {
      reader.fail(fmt::format("{}: expected integers in [1, 65536]", key));
      return list;
    }
    list.push_back(int(*number));
  }
  return list;
}

}  // namespace

Result<ResnetConfig> parse_resnet(const json::object& object) {
  ConfigReader reader(object, "config.json");
  ResnetConfig config;
  config.architecture = std::string(object.at("architectures").as_array()[0].as_string());
  config.channels = int(reader.integer_or("num_channels", 3, 1, 16));
  config.embedding = int(reader.integer_or("embedding_size", 64, 1, 1 << 16));
  config.widths = read_list(reader, object, "hidden_sizes");
  config.depths = read_list(reader, object, "depths");
  const std::string layer = reader.string_or("layer_type", "bottleneck");
  if (layer != "bottleneck" && layer != "basic")
    reader.fail(fmt::format("layer_type: expected bottleneck or basic, found '{}'", layer));
  config.bottleneck = layer == "bottleneck";
  const std::string activation = reader.string_or("hidden_act", "relu");
  if (activation != "relu") reader.fail(fmt::format("hidden_act: expected relu, found '{}'", activation));
  config.downsample_first = reader.boolean_or("downsample_in_first_stage", false);
  config.downsample_in_bottleneck = reader.boolean_or("downsample_in_bottleneck", false);
  if (config.widths.size() != config.depths.size()) {
    reader.fail(fmt::format("depths: expected as many as hidden_sizes, {}, found {}", config.widths.size(),
                            config.depths.size()));
  }
  config.labels = parse_labels(object, int(reader.integer_or("num_labels", 1000, 1, 1 << 20)));
  SW_TRY(reader.status());
  return config;
}

std::vector<ResnetPart> resnet_block_parts(const ResnetConfig& config, int inputs, int outputs, int stride) {
  if (!config.bottleneck) return {{inputs, outputs, 3, stride}, {outputs, outputs, 3, 1}};
  const int inner = outputs / 4, early = config.downsample_in_bottleneck ? stride : 1;
  return {{inputs, inner, 1, early}, {inner, inner, 3, stride / early}, {inner, outputs, 1, 1}};
}

ResnetNaming resnet_naming(const weights::WeightScope& scope) {
  ResnetNaming naming;
  naming.root = "resnet.";
  naming.torchvision = scope.contains("conv1.weight") && !scope.contains("resnet.embedder.embedder.convolution.weight");
  return naming;
}

OneShotInfo describe_resnet(const ResnetConfig& config, const ImageConfig& image) {
  OneShotInfo info;
  info.architecture = config.architecture;
  info.vision = true;
  info.outputs = {OneShotOutput::kScores, OneShotOutput::kEmbedding};
  info.hidden_size = info.embedding_dims = config.widths.back();
  info.channels = config.channels;
  info.height = image.height();
  info.width = image.width();
  info.labels = config.labels;
  return info;
}

}  // namespace spillway::models
