// ResnetConfig: what config.json says of a ResNet, and what its checkpoint calls the parts: the names of Hugging Face
// or of torchvision. Values; any thread. Not its job: weights.
#pragma once

#include <fmt/format.h>

#include <boost/json/fwd.hpp>
#include <string>
#include <vector>

#include "models/image_config.h"
#include "models/one_shot_model.h"
#include "nn/convolution.h"

namespace spillway::models {

struct ResnetConfig {
  std::string architecture;
  int channels = 3;
  int embedding = 64;
  std::vector<int> widths, depths;
  bool bottleneck = true;
  bool downsample_first = false;          // the first stage halves the image too
  bool downsample_in_bottleneck = false;  // by its first convolution (v1) rather than the 3 x 3 one (v1.5)
  std::vector<std::string> labels;
};

Result<ResnetConfig> parse_resnet(const boost::json::object& object);

// One convolution of a block.
struct ResnetPart {
  int inputs, outputs, size, stride;
  kernels::Window window() const { return {.size = size, .stride = stride, .padding = size / 2}; }
};
std::vector<ResnetPart> resnet_block_parts(const ResnetConfig& config, int inputs, int outputs, int stride);

// What the checkpoint calls its parts.
struct ResnetNaming {
  bool torchvision = false;
  std::string root;

  nn::ConvolutionNames stem() const {
    if (torchvision) return {"conv1", "bn1"};
    return {root + "embedder.embedder.convolution", root + "embedder.embedder.normalization"};
  }
  std::string block(size_t stage, int layer) const {
    return torchvision ? fmt::format("layer{}.{}", stage + 1, layer)
                       : fmt::format("{}encoder.stages.{}.layers.{}", root, stage, layer);
  }
  nn::ConvolutionNames convolution(int index) const {
    if (torchvision) return {fmt::format("conv{}", index + 1), fmt::format("bn{}", index + 1)};
    return {fmt::format("layer.{}.convolution", index), fmt::format("layer.{}.normalization", index)};
  }
  nn::ConvolutionNames shortcut() const {
    if (torchvision) return {"downsample.0", "downsample.1"};
    return {"shortcut.convolution", "shortcut.normalization"};
  }
  std::string classifier() const { return torchvision ? "fc" : "classifier.1"; }
};

ResnetNaming resnet_naming(const weights::WeightScope& scope);

// What the config says of the model, but for its weights.
OneShotInfo describe_resnet(const ResnetConfig& config, const ImageConfig& image);

}  // namespace spillway::models
