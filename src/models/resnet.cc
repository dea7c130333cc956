// ResNets, by the names of Hugging Face or of torchvision. Channels last throughout; images of one batch may differ in
// size.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <map>
#include <optional>

#include "kernels/encoder.h"
#include "models/one_shot_loader.h"
#include "models/resnet_config.h"
#include "nn/convolution.h"
#include "nn/encoder_layer.h"
#include "nn/step.h"

namespace spillway::models {
namespace {

using kernels::ImageRows;
using nn::Convolution;
using nn::Images;
using tensor::TensorView;

constexpr int kImagesMax = 32;

struct Block {
  std::vector<Convolution> convolutions;
  std::optional<Convolution> shortcut;

  static Result<Block> load(const weights::WeightScope& scope, const ResnetNaming& naming, const ResnetConfig& config,
                            int inputs, int outputs, int stride, bool fold, nn::LoadContext& context) {
    Block block;
    const std::vector<ResnetPart> parts = resnet_block_parts(config, inputs, outputs, stride);
    for (size_t i = 0; i < parts.size(); ++i) {
      SW_ASSIGN(Convolution loaded, Convolution::load(scope, naming.convolution(int(i)), parts[i].inputs,
                                                      parts[i].outputs, parts[i].window(), fold, context));
      block.convolutions.push_back(std::move(loaded));
    }
    if (inputs != outputs || stride != 1) {
      SW_ASSIGN(block.shortcut, Convolution::load(scope, naming.shortcut(), inputs, outputs,
                                                  {.size = 1, .stride = stride}, fold, context));
    }
    return block;
  }

  // x is consumed: it may be the residual that the sum is made in.
  Images apply(const Images& x, const nn::OneShotStep& step) const {
    const Images residual = shortcut ? shortcut->apply(x, false, step) : x;
    const nn::ArenaScope scope(step.arena);
    Images inner = x;
    for (size_t i = 0; i + 1 < convolutions.size(); ++i) inner = convolutions[i].apply(inner, true, step);
    convolutions.back().add_to(inner, residual, step);
    return residual;
  }
};

class Resnet final : public OneShotModel {
 public:
  static Result<std::unique_ptr<OneShotModel>> load(ResnetConfig config, OneShotLoad load) {
    auto model = std::unique_ptr<Resnet>(new Resnet(std::move(config), load));
    if (!load.folder.empty()) {
      SW_ASSIGN(model->image_, read_image_config(load.folder));
    }
    nn::LoadContext context{.precision = load.precision, .stream = load.stream};
    SW_TRY(model->load_weights(*model->source_, context));
    model->describe(context, load.precision_name);
    return std::unique_ptr<OneShotModel>(std::move(model));
  }

  const OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return kImagesMax; }
  int batch_inputs_max() const override { return kImagesMax; }
  int64_t launches() const override { return launches_; }

  std::vector<TensorView> run(std::span<const OneShotInput> batch, tensor::Stream& stream) override {
    SW_CHECK(!batch.empty() && int(batch.size()) <= kImagesMax, "batch of another size");
    arena_.reset();
    launches_ = 0;
    const nn::OneShotStep step{
        .arena = arena_, .stream = stream, .fusions = fusions_, .offsets = {}, .positions = {}, .launches = &launches_};
    const TensorView scores = arena_.f32({int64_t(batch.size()), classifier_.outputs()});
    const TensorView vectors = arena_.f32({int64_t(batch.size()), config_.widths.back()});
    // One image after another: what is between its layers stays in the cache, and its bits are its own.
    for (size_t i = 0; i < batch.size(); ++i) {
      const nn::ArenaScope scope(arena_);
      const Images features = run_image(batch[i], step);
      const int32_t offsets[] = {0, int32_t(features.pixels.shape[0])};
      kernels::pool_rows(features.pixels, offsets, kernels::Pooling::kMean, vectors.rows(int64_t(i), int64_t(i) + 1),
                         stream);
      step.count();
    }
    classifier_.apply(vectors, scores, kernels::Activation::kNone, step);
    std::vector<TensorView> list;
    for (size_t i = 0; i < batch.size(); ++i) {
      const TensorView& all = batch[i].output == OneShotOutput::kEmbedding ? vectors : scores;
      list.push_back(all.rows(int64_t(i), int64_t(i) + 1).reshaped({all.shape[1]}));
    }
    return list;
  }

 private:
  Resnet(ResnetConfig config, OneShotLoad& load)
      : config_(std::move(config)), source_(std::move(load.source)), fusions_(load.fusions) {}

  Status load_weights(const weights::WeightSource& source, nn::LoadContext& context) {
    const weights::WeightScope scope(source);
    const ResnetNaming naming = resnet_naming(scope);
    const bool fold = fusions_.convolution;
    SW_ASSIGN(stem_, Convolution::load(scope, naming.stem(), config_.channels, config_.embedding,
                                       {.size = 7, .stride = 2, .padding = 3}, fold, context));
    int inputs = config_.embedding;
    for (size_t stage = 0; stage < config_.widths.size(); ++stage) {
      for (int layer = 0; layer < config_.depths[stage]; ++layer) {
        const int stride = layer == 0 && (stage > 0 || config_.downsample_first) ? 2 : 1;
        SW_ASSIGN(Block block, Block::load(scope.scope(naming.block(stage, layer)), naming, config_, inputs,
                                           config_.widths[stage], stride, fold, context));
        blocks_.push_back(std::move(block));
        inputs = config_.widths[stage];
      }
    }
    SW_ASSIGN(classifier_,
              nn::OneShotLinear::load(scope, {{naming.classifier(), int64_t(config_.labels.size())}}, inputs, context));
    return {};
  }

  // Planes of [channels, height, width] to pixels of channels.
  Images read_pixels(const OneShotInput& input, const nn::OneShotStep& step) const {
    const int height = input.height > 0 ? input.height : info_.height;
    const int width = input.width > 0 ? input.width : info_.width;
    const int64_t area = int64_t(height) * width, channels = config_.channels;
    SW_CHECK(int64_t(input.pixels.size()) == area * channels, "pixels of another image size");
    Images images{step.arena.f32({area, channels}), {{0, height, width}}};
    float* out = images.pixels.as<float>();
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t p = 0; p < area; ++p) out[p * channels + c] = input.pixels[size_t(c * area + p)];
    }
    return images;
  }

  Images run_image(const OneShotInput& input, const nn::OneShotStep& step) {
    Images x = stem_->apply(read_pixels(input, step), true, step);
    const kernels::Window window{.size = 3, .stride = 2, .padding = 1};
    Images pooled;
    pooled.rows = {{0, window.output(x.rows[0].height), window.output(x.rows[0].width)}};
    pooled.pixels = step.arena.f32({pooled.rows[0].pixels(), x.channels()});
    kernels::max_pool(x.pixels, x.rows, window, pooled.pixels, pooled.rows, step.stream);
    step.count();
    for (const Block& block : blocks_) pooled = block.apply(pooled, step);
    return pooled;
  }

  void describe(const nn::LoadContext& context, const std::string& precision) {
    info_ = describe_resnet(config_, image_);
    tell_loaded(context, precision, info_);
    size_workspace();
  }

  // Counts what one image of the model's size takes, layer by layer, as run_image() does.
  void size_workspace() {
    const auto bytes = [](int64_t rows, int64_t width) {
      return tensor::Arena::footprint(tensor::DType::kF32, {rows, width});
    };
    int64_t height = info_.height, width = info_.width, flops = 0;
    size_t total = bytes(kImagesMax, int64_t(config_.labels.size())) + bytes(kImagesMax, config_.widths.back());
    total += bytes(height * width, config_.channels);
    height = (height + 1) / 2;
    width = (width + 1) / 2;
    total += bytes(height * width, config_.embedding);
    flops += 2 * height * width * config_.embedding * config_.channels * 49;
    height = (height + 1) / 2;
    width = (width + 1) / 2;
    total += bytes(height * width, config_.embedding);
    int64_t inputs = config_.embedding;
    for (size_t stage = 0; stage < config_.widths.size(); ++stage) {
      const int64_t outputs = config_.widths[stage], inner = config_.bottleneck ? outputs / 4 : outputs;
      const int64_t before = height * width;
      if (stage > 0 || config_.downsample_first) {
        height = (height + 1) / 2;
        width = (width + 1) / 2;
      }
      // The shortcut's output stays; the inside of the widest block comes and goes.
      total += bytes(height * width, outputs) + 2 * bytes(before, std::max(inner, outputs)) + bytes(before, outputs);
      const int64_t pixels = height * width, layers = config_.depths[stage];
      const int64_t each = config_.bottleneck ? inner * inner * 9 + inner * outputs : 9 * outputs * outputs;
      const int64_t first = config_.bottleneck ? inner : 9 * outputs;
      flops += 2 * pixels * (layers * each + (layers - 1) * first * outputs + (first + outputs) * inputs);
      inputs = outputs;
    }
    info_.flops_per_token = flops + 2 * inputs * int64_t(config_.labels.size());
    arena_ = tensor::Arena(total);
  }

  ResnetConfig config_;
  std::unique_ptr<weights::WeightSource> source_;  // small weights lie in it
  nn::Fusions fusions_;
  ImageConfig image_;
  OneShotInfo info_;
  std::optional<Convolution> stem_;
  std::vector<Block> blocks_;
  nn::OneShotLinear classifier_;
  tensor::Arena arena_{64};
  int64_t launches_ = 0;
};

}  // namespace

Result<std::unique_ptr<OneShotModel>> load_resnet(const boost::json::object& config, OneShotLoad load) {
  if (load.stream.device().kind == tensor::DeviceKind::kCuda) return load_device_resnet(config, std::move(load));
  SW_ASSIGN(ResnetConfig parsed, parse_resnet(config));
  return Resnet::load(std::move(parsed), std::move(load));
}

}  // namespace spillway::models
