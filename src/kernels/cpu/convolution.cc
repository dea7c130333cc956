#include "kernels/convolution.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/operations.h"
#include "kernels/cpu/products.h"

namespace spillway::kernels::cpu {
namespace {

constexpr int64_t kBlockBytes = 2 << 20;  // of packed patches at a time

// Which image and which of its pixels an output row is.
struct Place {
  size_t image = 0;
  int row = 0;
  int column = 0;
};

Place place_of(std::span<const ImageRows> images, int64_t index) {
  size_t image = 0;
  while (index >= images[image].first + images[image].pixels()) ++image;
  const auto pixel = static_cast<int>(index - images[image].first);
  return {image, pixel / images[image].width, pixel % images[image].width};
}

void advance(Place& place, std::span<const ImageRows> images) {
  if (++place.column < images[place.image].width) return;
  place.column = 0;
  if (++place.row < images[place.image].height) return;
  place.row = 0;
  ++place.image;
}

// The patch under an output pixel: size * size * channels floats, zeros outside the image.
void gather_patch(const ConvolutionArgs& args, const Place& place, int64_t channels, float* out) {
  const ImageRows& image = args.images[place.image];
  const float* x = args.x.as<float>();
  const int size = args.window.size;
  const int top = place.row * args.window.stride - args.window.padding;
  const int left = place.column * args.window.stride - args.window.padding;
  const int begin = std::max(0, -left), end = std::min(size, image.width - left);
  const auto line = static_cast<int64_t>(size) * channels;
  for (int r = 0; r < size; ++r, out += line) {
    const int row = top + r;
    if (row < 0 || row >= image.height || begin >= end) {
      std::memset(out, 0, static_cast<size_t>(line) * 4);
      continue;
    }
    const float* from = x + (image.first + int64_t{row} * image.width + left + begin) * channels;
    if (begin > 0) std::memset(out, 0, static_cast<size_t>(begin * channels) * 4);
    std::memcpy(out + begin * channels, from, static_cast<size_t>((end - begin) * channels) * 4);
    if (end < size) std::memset(out + end * channels, 0, static_cast<size_t>((size - end) * channels) * 4);
  }
}

// Packs one tile of patches: output rows [first, first + count).
void pack_patches(const ConvolutionArgs& args, const PackedRows& packed, int64_t tile, int64_t first, int count,
                  float* patches) {
  const int64_t channels = args.x.shape[1], k = packed.k;
  const float* rows[kRowTileMost];
  Place place = place_of(args.outputs, first);
  for (int r = 0; r < count; ++r, advance(place, args.outputs)) {
    if (args.window.size == 1) {
      const ImageRows& image = args.images[place.image];
      const int64_t pixel = int64_t{place.row} * args.window.stride * image.width + place.column * args.window.stride;
      rows[r] = args.x.as<float>() + (image.first + pixel) * channels;
      continue;
    }
    rows[r] = patches + r * k;
    gather_patch(args, place, channels, patches + r * k);
  }
  pack_tile(packed, tile, rows);
}

void check(const ConvolutionArgs& args) {
  SW_CHECK(args.images.size() == args.outputs.size() && !args.images.empty(), "convolution of other images");
  SW_CHECK(args.window.size * args.window.size * args.x.shape[1] == args.weight->k,
           "convolution of " + to_string(args.x.shape) + " with K = " + std::to_string(args.weight->k));
  SW_CHECK(args.window.size > 1 || args.window.padding == 0, "padding around a window of one pixel");
  for (size_t i = 0; i < args.images.size(); ++i) {
    SW_CHECK(args.window.output(args.images[i].height) == args.outputs[i].height &&
                 args.window.output(args.images[i].width) == args.outputs[i].width,
             "convolution to another image size");
  }
  const ImageRows& last = args.outputs.back();
  SW_CHECK(args.y.elements() == (last.first + last.pixels()) * args.weight->n,
           "convolution to " + to_string(args.y.shape));
}

}  // namespace

void convolution(const ConvolutionArgs& args, tensor::Stream& stream) {
  check(args);
  const PackedLinear& weight = *args.weight;
  const RowFormat format = row_format(weight);
  const int64_t total = args.outputs.back().first + args.outputs.back().pixels();
  const int64_t tile_most = PackedRows{format, total, weight.k}.tile_most();
  const int64_t fit = kBlockBytes / (weight.k * row_element_bytes(format)) / tile_most * tile_most;
  const int64_t most = std::min(total, std::max<int64_t>(fit, 8 * tile_most));
  const auto patch_bytes = static_cast<size_t>(args.window.size > 1 ? tile_most * weight.k * 4 + 63 : 0) / 64 * 64;
  Product product;
  product.weight = &weight;
  product.y_stride = weight.n;
  product.bias = args.epilogue.bias.empty() ? nullptr : args.epilogue.bias.as<float>();
  product.accumulate = args.epilogue.accumulate;
  product.activation = args.epilogue.activation;
  product.x = {format, most, weight.k, nullptr};
  const size_t packed = packed_bytes(format, most, weight.k);
  const size_t products = products_bytes({&product, 1}, stream);
  auto* scratch =
      static_cast<std::byte*>(stream.scratch(packed + products + patch_bytes * static_cast<size_t>(stream.threads())));
  product.x.data = scratch;
  for (int64_t first = 0; first < total; first += most) {
    product.x.rows = std::min(most, total - first);
    product.y = args.y.as<float>() + first * weight.n;
    const int64_t height = product.x.tile_height();
    stream.parallel_tasks(product.x.tiles(), [&](int64_t tile, int thread) {
      auto* patches = reinterpret_cast<float*>(scratch + packed + products + patch_bytes * static_cast<size_t>(thread));
      const auto count = static_cast<int>(std::min(height, product.x.rows - tile * height));
      pack_patches(args, product.x, tile, first + tile * height, count, patches);
    });
    run_products({&product, 1}, scratch + packed, stream);
  }
}

void max_pool(tensor::TensorView x, std::span<const ImageRows> images, Window window, tensor::TensorView y,
              std::span<const ImageRows> outputs, tensor::Stream& stream) {
  const int64_t channels = x.shape[1];
  const float* in = x.as<float>();
  float* out = y.as<float>();
  const int64_t total = outputs.back().first + outputs.back().pixels();
  SW_CHECK(y.elements() == total * channels, "pooling to " + to_string(y.shape));
  stream.parallel_for(total, 64, [&](int64_t begin, int64_t end, int) {
    Place place = place_of(outputs, begin);
    for (int64_t index = begin; index < end; ++index, advance(place, outputs)) {
      const ImageRows& image = images[place.image];
      const int top = place.row * window.stride - window.padding, left = place.column * window.stride - window.padding;
      float* target = out + index * channels;
      bool first = true;
      for (int r = std::max(0, top); r < std::min(top + window.size, image.height); ++r) {
        for (int c = std::max(0, left); c < std::min(left + window.size, image.width); ++c) {
          const float* from = in + (image.first + int64_t{r} * image.width + c) * channels;
          for (int64_t i = 0; i < channels; ++i) target[i] = first ? from[i] : std::max(target[i], from[i]);
          first = false;
        }
      }
    }
  });
}

}  // namespace spillway::kernels::cpu
