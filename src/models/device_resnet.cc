// ResNets on a device: the families of resnet.cc, images of one size as one batch and one graph.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/json/object.hpp>
#include <map>
#include <optional>

#include "kernels/device_image.h"
#include "models/one_shot_loader.h"
#include "models/resnet_config.h"
#include "models/step_graphs.h"
#include "nn/device_encoder_layer.h"
#include "tensor/cuda/cuda.h"

namespace spillway::models {
namespace {

using kernels::DeviceConvolution;
using kernels::DeviceNumbers;
using kernels::ImageBatch;
using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

constexpr int kImagesMax = 256;
constexpr int64_t kUploadImages = 32;  // at a time

int padded(int channels) {
  return (channels + kernels::kChannelStep - 1) / kernels::kChannelStep * kernels::kChannelStep;
}

// Powers of two, and from 16 on their halves between.
int image_bucket(int images) {
  const int power = int(std::bit_ceil(unsigned(images)));
  return power >= 32 && images <= power / 4 * 3 ? power / 4 * 3 : power;
}

struct Pass {
  tensor::Stream& stream;
  int64_t* launches;
  void count(int64_t kernels = 1) const { *launches += kernels; }
};

// Activations of a batch.
struct Pictures {
  TensorView pixels;
  ImageBatch batch;
};

// A convolution and its norm, folded or (Fusions::convolution off) beside it.
class Layer {
 public:
  static Result<Layer> load(const weights::WeightScope& scope, const nn::ConvolutionNames& names, int inputs,
                            int outputs, kernels::Window window, bool fold, DeviceNumbers numbers,
                            nn::LoadContext& context) {
    Layer layer;
    SW_ASSIGN(nn::ConvolutionWeights loaded,
              nn::load_convolution(scope, names, inputs, padded(inputs), outputs, window.size, fold));
    auto packed = kernels::pack_device_convolution(loaded.weight, loaded.shift, window, numbers, context.stream);
    if (!packed.ok()) return std::move(packed).error().in(scope.path(names.convolution));
    layer.convolution_ = std::move(*packed);
    if (!fold) {
      layer.scale_ = context.stream.place(std::move(loaded.scale));
      layer.shift_ = context.stream.place(std::move(loaded.shift));
    }
    context.add(loaded.weight.view().elements() + outputs, int64_t(layer.convolution_.bytes()));
    return layer;
  }

  ImageBatch output(ImageBatch batch) const {
    const kernels::Window& window = convolution_.window;
    return {batch.images, window.output(batch.height), window.output(batch.width)};
  }

  tensor::Shape input_shape(ImageBatch batch) const { return kernels::input_shape(convolution_, batch); }

  // Into memory; residual may be empty.
  Pictures apply(const Pictures& x, bool relu, TensorView residual, TensorView memory, const Pass& pass) const {
    Pictures y{{}, output(x.batch)};
    const bool fused = scale_.empty();
    y.pixels = TensorView(memory.data, x.pixels.dtype, {y.batch.pixels(), convolution_.outputs});
    SW_CHECK(y.pixels.bytes() <= memory.bytes(), "images larger than the workspace was sized for");
    kernels::device_convolution({.x = x.pixels,
                                 .images = x.batch,
                                 .convolution = &convolution_,
                                 .bias = fused,
                                 .relu = fused && relu,
                                 .residual = fused ? residual : TensorView(),
                                 .y = y.pixels},
                                pass.stream);
    pass.count();
    if (fused) return y;
    kernels::device_affine(y.pixels, scale_, shift_, pass.stream);
    pass.count();
    if (!residual.empty()) {
      kernels::device_add(y.pixels, residual, pass.stream);
      pass.count();
    }
    if (relu) {
      kernels::device_activate(y.pixels, kernels::Activation::kRelu, pass.stream);
      pass.count();
    }
    return y;
  }

 private:
  DeviceConvolution convolution_;
  Tensor scale_, shift_;  // of an unfolded norm
};

struct Block {
  std::vector<Layer> layers;
  std::optional<Layer> shortcut;
};

class DeviceResnet final : public OneShotModel {
 public:
  static Result<std::unique_ptr<OneShotModel>> load(ResnetConfig config, OneShotLoad load) {
    SW_TRY(kernels::check_device_numbers(load.numbers, load.stream.device()));
    auto model = std::unique_ptr<DeviceResnet>(new DeviceResnet(std::move(config), load));
    if (!load.folder.empty()) {
      SW_ASSIGN(model->image_, read_image_config(load.folder));
    }
    nn::LoadContext context{.precision = load.precision, .stream = load.stream};
    SW_TRY(model->load_weights(*model->source_, context));
    model->info_ = describe_resnet(model->config_, model->image_);
    tell_loaded(context, load.precision_name, model->info_);
    model->take_memory(load.stream.device());
    load.stream.synchronize();
    return std::unique_ptr<OneShotModel>(std::move(model));
  }

  const OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return kImagesMax; }
  int batch_inputs_max() const override { return kImagesMax; }
  int64_t launches() const override { return launches_; }

  // Images of one size are computed together, those of another after them.
  std::vector<TensorView> run(std::span<const OneShotInput> batch, tensor::Stream& stream) override {
    SW_CHECK(!batch.empty() && int(batch.size()) <= kImagesMax, "batch of another size");
    launches_ = 0;
    std::map<std::pair<int, int>, std::vector<size_t>> by_size;
    for (size_t i = 0; i < batch.size(); ++i) {
      const OneShotInput& input = batch[i];
      by_size[{input.height > 0 ? input.height : info_.height, input.width > 0 ? input.width : info_.width}].push_back(
          i);
    }
    std::vector<TensorView> list(batch.size());
    int64_t row = 0;
    for (const auto& [size, members] : by_size) {
      const ImageBatch images{image_bucket(int(members.size())), size.first, size.second};
      upload(batch, members, images, stream);
      compute(images, stream);
      const auto count = int64_t(members.size());
      download(scores_, host_scores_, row, count, stream);
      download(vectors_, host_vectors_, row, count, stream);
      for (const size_t i : members) {
        const TensorView all = batch[i].output == OneShotOutput::kEmbedding ? host_vectors_ : host_scores_;
        list[i] = all.rows(row, row + 1).reshaped({all.shape[1]});
        ++row;
      }
    }
    return list;
  }

  bool recompute(tensor::Stream& stream) override {
    if (last_.images == 0) return false;
    launches_ = 0;
    compute(last_, stream);
    return true;
  }

 private:
  DeviceResnet(ResnetConfig config, OneShotLoad& load)
      : config_(std::move(config)),
        source_(std::move(load.source)),
        fusions_(load.fusions),
        numbers_(load.numbers),
        type_(kernels::activation_type(load.numbers)) {}

  Status load_weights(const weights::WeightSource& source, nn::LoadContext& context) {
    const weights::WeightScope scope(source);
    const ResnetNaming naming = resnet_naming(scope);
    const bool fold = fusions_.convolution;
    SW_ASSIGN(stem_, Layer::load(scope, naming.stem(), config_.channels, config_.embedding,
                                 {.size = 7, .stride = 2, .padding = 3}, fold, numbers_, context));
    int inputs = config_.embedding;
    for (size_t stage = 0; stage < config_.widths.size(); ++stage) {
      for (int layer = 0; layer < config_.depths[stage]; ++layer) {
        const int stride = layer == 0 && (stage > 0 || config_.downsample_first) ? 2 : 1,
                  outputs = config_.widths[stage];
        const weights::WeightScope inside = scope.scope(naming.block(stage, layer));
        Block& block = blocks_.emplace_back();
        const std::vector<ResnetPart> parts = resnet_block_parts(config_, inputs, outputs, stride);
        for (size_t i = 0; i < parts.size(); ++i) {
          SW_ASSIGN(Layer loaded, Layer::load(inside, naming.convolution(int(i)), parts[i].inputs, parts[i].outputs,
                                              parts[i].window(), fold, numbers_, context));
          block.layers.push_back(std::move(loaded));
        }
        if (inputs != outputs || stride != 1) {
          SW_ASSIGN(block.shortcut, Layer::load(inside, naming.shortcut(), inputs, outputs,
                                                {.size = 1, .stride = stride}, fold, numbers_, context));
        }
        inputs = outputs;
      }
    }
    SW_ASSIGN(classifier_, nn::load_device_linear(scope, {{naming.classifier(), int64_t(config_.labels.size())}},
                                                  inputs, numbers_, DType::kF32, context));
    return {};
  }

  // Elements of the largest activations between layers, for a batch of kImagesMax of the model's size; counts the
  // operations of one image on the way.
  int64_t widest() {
    ImageBatch at{kImagesMax, info_.height, info_.width};
    int64_t largest = stem_->input_shape(at).elements();
    double flops = 0;
    const auto see = [&](const ImageBatch& batch, int outputs, int depth) {
      largest = std::max(largest, batch.pixels() * outputs);
      flops += 2.0 * double(batch.pixels()) / batch.images * outputs * depth;
    };
    at = stem_->output(at);
    see(at, config_.embedding, config_.channels * 49);
    at = {at.images, pool_window_.output(at.height), pool_window_.output(at.width)};
    size_t next = 0;
    int inputs = config_.embedding;
    for (size_t stage = 0; stage < config_.widths.size(); ++stage) {
      for (int layer = 0; layer < config_.depths[stage]; ++layer, ++next) {
        const int outputs = config_.widths[stage];
        ImageBatch inside = at;
        const int stride = layer == 0 && (stage > 0 || config_.downsample_first) ? 2 : 1;
        for (const ResnetPart& part : resnet_block_parts(config_, inputs, outputs, stride)) {
          const kernels::Window window = part.window();
          inside = {at.images, window.output(inside.height), window.output(inside.width)};
          see(inside, part.outputs, part.inputs * part.size * part.size);
        }
        if (blocks_[next].shortcut) see(inside, outputs, inputs);
        at = inside;
        inputs = outputs;
      }
    }
    info_.flops_per_token = int64_t(flops) + 2 * int64_t(inputs) * int64_t(config_.labels.size());
    return largest;
  }

  void take_memory(tensor::Device device) {
    const int64_t elements = widest(), labels = int64_t(config_.labels.size()), width = config_.widths.back();
    const tensor::Device pinned{tensor::DeviceKind::kPinned, 0};
    const int64_t planes = int64_t(kImagesMax) * config_.channels * info_.height * info_.width;
    planes_ = Tensor(DType::kF32, {planes}, device);
    host_planes_ = Tensor(DType::kF32, {planes}, pinned);
    for (Tensor& memory : memory_) memory = Tensor(type_, {elements}, device);
    pooled_ = Tensor(type_, {kImagesMax, width}, device);
    offsets_ = Tensor(DType::kI32, {kImagesMax + 1}, device);
    vectors_ = Tensor(DType::kF32, {kImagesMax, width}, device);
    scores_ = Tensor(DType::kF32, {kImagesMax, labels}, device);
    host_vectors_ = Tensor(DType::kF32, {kImagesMax, width}, pinned);
    host_scores_ = Tensor(DType::kF32, {kImagesMax, labels}, pinned);
  }

  void upload(std::span<const OneShotInput> batch, const std::vector<size_t>& members, ImageBatch images,
              tensor::Stream& stream) {
    const int64_t each = int64_t(config_.channels) * images.height * images.width;
    SW_CHECK(each * images.images <= planes_.shape().elements(), "images larger than the model's");
    stream.synchronize();  // what is in pinned memory is on its way until then
    // Some images are on their way while the pool's threads copy the next ones.
    const int64_t count = int64_t(members.size());
    for (int64_t begin = 0; begin < count; begin += kUploadImages) {
      const int64_t end = std::min(count, begin + kUploadImages);
      stream.parallel_for(end - begin, 1, [&](int64_t first, int64_t last, int) {
        for (int64_t i = begin + first; i < begin + last; ++i) {
          const std::span<const float> pixels = batch[members[size_t(i)]].pixels;
          SW_CHECK(int64_t(pixels.size()) == each, "pixels of another image size");
          std::copy(pixels.begin(), pixels.end(), host_planes_.as<float>() + i * each);
        }
      });
      stream.cuda().upload_pinned(planes_.as<float>() + begin * each, host_planes_.as<float>() + begin * each,
                                  size_t((end - begin) * each) * 4);
    }
    // Where each image's last pixels are: the same for every batch of this size.
    if (images.height == last_.height && images.width == last_.width) return;
    const ImageBatch end = final_size(images);
    std::vector<int32_t> offsets;
    for (int i = 0; i <= kImagesMax; ++i) offsets.push_back(int32_t(i * end.height * end.width));
    stream.upload(offsets_.view().data, offsets.data(), offsets.size() * 4);
  }

  ImageBatch final_size(ImageBatch at) const {
    at = stem_->output(at);
    at = {at.images, pool_window_.output(at.height), pool_window_.output(at.width)};
    for (const Block& block : blocks_) {
      for (const Layer& layer : block.layers) at = layer.output(at);
    }
    return at;
  }

  void download(const Tensor& from, const Tensor& to, int64_t row, int64_t count, tensor::Stream& stream) const {
    const int64_t width = from.shape()[1];
    stream.cuda().download_pinned(to.as<float>() + row * width, from.view().data, size_t(count * width) * 4);
  }

  void compute(ImageBatch images, tensor::Stream& stream) {
    last_ = images;
    const int64_t key = (int64_t(images.images) << 40) | (int64_t(images.height) << 20) | images.width;
    int64_t& launches = launches_of_[key];
    graphs_.run(key, planes_.view().data, stream, [&] {
      launches = 0;
      run_pass(images, {stream, &launches});
    });
    launches_ += launches;
  }

  void run_pass(ImageBatch images, const Pass& pass) {
    Pictures x{TensorView(memory_[0].view().data, type_, stem_->input_shape(images)), images};
    kernels::device_pixels(planes_, images, config_.channels, x.pixels, pass.stream);
    pass.count();
    x = stem_->apply(x, true, {}, memory_[1], pass);
    Pictures pooled{{}, {images.images, pool_window_.output(x.batch.height), pool_window_.output(x.batch.width)}};
    pooled.pixels = TensorView(memory_[0].view().data, type_, {pooled.batch.pixels(), config_.embedding});
    kernels::device_max_pool(x.pixels, x.batch, pool_window_, pooled.pixels, pass.stream);
    pass.count();
    x = pooled;
    int from = 0;  // x is in memory_[from]; the block's parts go to the other four
    for (const Block& block : blocks_) {
      const auto other = [&](int i) { return memory_[size_t((from + i) % kMemories)].view(); };
      const TensorView residual =
          block.shortcut ? block.shortcut->apply(x, false, {}, other(1), pass).pixels : x.pixels;
      for (size_t i = 0; i + 1 < block.layers.size(); ++i)
        x = block.layers[i].apply(x, true, {}, other(2 + int(i % 2)), pass);
      x = block.layers.back().apply(x, true, residual, other(4), pass);
      from = (from + 4) % kMemories;
    }
    const TensorView vectors = vectors_.view().rows(0, images.images), halves = pooled_.view().rows(0, images.images);
    const TensorView offsets = offsets_.view().rows(0, images.images + 1);
    kernels::device_pool(x.pixels, offsets, kernels::Pooling::kMean, vectors, pass.stream);
    kernels::device_convert(vectors, halves, pass.stream);
    pass.count(2);
    pass.count(kernels::device_product(
        {.x = halves, .weight = &classifier_, .y = scores_.view().rows(0, images.images)}, pass.stream));
  }

  static constexpr int kMemories = 5;
  static constexpr kernels::Window pool_window_{.size = 3, .stride = 2, .padding = 1};

  ResnetConfig config_;
  std::unique_ptr<weights::WeightSource> source_;
  nn::Fusions fusions_;
  DeviceNumbers numbers_;
  DType type_;
  ImageConfig image_;
  OneShotInfo info_;
  std::optional<Layer> stem_;
  std::vector<Block> blocks_;
  kernels::DeviceLinear classifier_;
  Tensor planes_, host_planes_, memory_[kMemories], pooled_, offsets_, vectors_, scores_, host_vectors_, host_scores_;
  ImageBatch last_;
  std::map<int64_t, int64_t> launches_of_;
  int64_t launches_ = 0;
  StepGraphs graphs_;
};

}  // namespace

Result<std::unique_ptr<OneShotModel>> load_device_resnet(const boost::json::object& config, OneShotLoad load) {
  SW_ASSIGN(ResnetConfig parsed, parse_resnet(config));
  return DeviceResnet::load(std::move(parsed), std::move(load));
}

}  // namespace spillway::models
