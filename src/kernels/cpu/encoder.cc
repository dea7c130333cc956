#include "kernels/encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/quantized_table.h"
#include "tensor/dtype.h"

namespace spillway::kernels::cpu {
namespace {

using tensor::DType;
using tensor::TensorView;

constexpr int64_t kGrainElements = 1 << 14;  // below it the work stays on the calling thread
int64_t grain(int64_t width) { return kGrainElements / std::max<int64_t>(width, 1) + 1; }

const float* floats_or_null(const TensorView& view) { return view.empty() ? nullptr : view.as<float>(); }

// y (+)= row `index` of a table; scales: of a quantised one.
void read_row(const TensorView& table, const TensorView& scales, int64_t index, int64_t width, bool add, float* y) {
  SW_CHECK(index >= 0 && index < table.shape[0], "row outside an embedding table: " + std::to_string(index));
  if (table.dtype == DType::kU8) {
    SW_CHECK(table.shape[-1] == table_row_bytes(width) && scales.shape[-1] == table_groups(width),
             "a quantised table of another width");
    return read_table_row(table.as<uint8_t>() + index * table.shape[-1],
                          scales.as<float>() + index * table_groups(width), width, add, y);
  }
  SW_CHECK(table.shape[-1] == width, "a table of another width");
  if (table.dtype == DType::kF32) {
    const float* row = table.as<float>() + index * width;
    if (add) return kernel_table().add(y, row, width);
    std::memcpy(y, row, static_cast<size_t>(width) * 4);
    return;
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(table.data) + index * width;
  for (int64_t i = 0; i < width; ++i) {
    const float value =
        table.dtype == DType::kBF16 ? tensor::bf16_to_float(halves[i]) : tensor::f16_to_float(halves[i]);
    y[i] = add ? y[i] + value : value;
  }
}

// Keys, queries, values, outputs and scores of the task; enough for every instruction set.
size_t sequence_attention_bytes(int64_t tokens, int64_t dim) {
  const int64_t padded_dim = (dim + 3) / 4 * 4, padded_tokens = (tokens + kRowTile) / kRowTile * kRowTile;
  const int64_t words = 2 * padded_tokens * padded_dim + 2 * padded_dim * kPanel + kPanel + padded_tokens * kPanel;
  return static_cast<size_t>(words * 4 + 63) / 64 * 64;
}

}  // namespace

void layer_norm(TensorView x, TensorView weight, TensorView bias, float eps, TensorView y, tensor::Stream& stream) {
  const int64_t width = weight.elements();
  SW_CHECK(x.shape[-1] == width && x.elements() == y.elements(),
           "norm weight " + to_string(weight.shape) + " for x " + to_string(x.shape));
  const float *in = x.as<float>(), *w = weight.as<float>(), *b = floats_or_null(bias);
  float* out = y.as<float>();
  stream.parallel_for(x.elements() / width, grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) kernel_table().layer_norm(in + t * width, w, b, eps, width, out + t * width);
  });
}

void activate(TensorView x, Activation activation, tensor::Stream& stream) {
  float* data = x.as<float>();
  stream.parallel_for(x.elements(), kGrainElements, [&](int64_t begin, int64_t end, int) {
    kernel_table().activate(activation, data + begin, end - begin);
  });
}

void add_bias(TensorView x, TensorView bias, tensor::Stream& stream) {
  const int64_t width = bias.elements();
  float* data = x.as<float>();
  const float* b = bias.as<float>();
  stream.parallel_for(x.elements() / width, grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) kernel_table().add(data + t * width, b, width);
  });
}

void gated_activation(TensorView x, Activation activation, TensorView y, tensor::Stream& stream) {
  const int64_t width = y.shape[-1];
  SW_CHECK(x.shape[-1] == 2 * width && x.elements() == 2 * y.elements(),
           "gate and up " + to_string(x.shape) + " for y " + to_string(y.shape));
  const float* in = x.as<float>();
  float* out = y.as<float>();
  stream.parallel_for(y.elements() / width, grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* row = in + 2 * t * width;
      kernel_table().gated_activation(activation, row, row + width, width, out + t * width);
    }
  });
}

void embedding_norm(const EmbeddingNormArgs& args, tensor::Stream& stream) {
  const int64_t width = args.y.shape[-1];
  const int32_t* ids = args.ids.as<int32_t>();
  const int32_t* position = args.positions.empty() ? nullptr : args.position.as<int32_t>();
  const int32_t* type = args.type.empty() ? nullptr : args.type.as<int32_t>();
  const float *weight = floats_or_null(args.weight), *bias = floats_or_null(args.bias);
  float* out = args.y.as<float>();
  SW_CHECK(args.y.elements() == args.ids.elements() * width, "embedding of other shapes");
  stream.parallel_for(args.ids.elements(), grain(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      float* y = out + t * width;
      read_row(args.tokens, args.token_scales, ids[t], width, false, y);
      if (position != nullptr) read_row(args.positions, {}, args.first_position + position[t], width, true, y);
      if (!args.types.empty()) read_row(args.types, {}, type != nullptr ? type[t] : 0, width, true, y);
      if (weight != nullptr) kernel_table().layer_norm(y, weight, bias, args.eps, width, y);
    }
  });
}

QuantizedTable quantize_table(TensorView table, tensor::Stream& stream) {
  const int64_t rows = table.shape[0], width = table.shape[1], groups = table_groups(width);
  const int64_t row_bytes = table_row_bytes(width);
  QuantizedTable out{tensor::Tensor(DType::kU8, {rows, row_bytes}), tensor::Tensor(DType::kF32, {rows, groups})};
  stream.parallel_for(rows, 64, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(width));
    for (int64_t r = begin; r < end; ++r) {
      read_row(table, {}, r, width, false, row.data());
      quantize_table_row(row.data(), width, out.values.as<uint8_t>() + r * row_bytes,
                         out.scales.as<float>() + r * groups);
    }
  });
  return out;
}

void sequence_attention(const SequenceAttentionArgs& args, tensor::Stream& stream) {
  const auto sequences = static_cast<int64_t>(args.offsets.size()) - 1;
  if (sequences <= 0) return;
  SW_CHECK(args.head_dim > 0 && args.head_dim % 2 == 0 && args.heads > 0, "heads of an odd size");
  SW_CHECK(args.y.elements() == args.offsets.back() * int64_t{args.heads} * args.head_dim,
           "attention to " + to_string(args.y.shape));
  int64_t longest = 0;
  for (size_t s = 0; s + 1 < args.offsets.size(); ++s)
    longest = std::max<int64_t>(longest, args.offsets[s + 1] - args.offsets[s]);
  const size_t bytes = sequence_attention_bytes(longest, args.head_dim);
  auto* scratch = static_cast<std::byte*>(stream.scratch(bytes * static_cast<size_t>(stream.threads())));
  const float *q = args.q.as<float>(), *k = args.k.as<float>(), *v = args.v.as<float>();
  float* y = args.y.as<float>();
  stream.parallel_tasks(sequences * args.heads, [&](int64_t index, int thread) {
    const int64_t head = index % args.heads;
    const auto s = static_cast<size_t>(index / args.heads);
    const int64_t first = args.offsets[s] * args.row_stride + head * args.head_dim;
    SequenceAttentionTask task;
    task.q = q + first;
    task.k = k + first;
    task.v = v + first;
    task.row = args.row_stride;
    task.tokens = args.offsets[s + 1] - args.offsets[s];
    task.queries = args.firsts ? std::min(task.tokens, 1) : task.tokens;
    task.dim = args.head_dim;
    task.scale = args.scale;
    task.window = args.window;
    task.half = args.half;
    task.out_row = int64_t{args.heads} * args.head_dim;
    task.out = y + args.offsets[s] * task.out_row + head * args.head_dim;
    task.work = scratch + static_cast<size_t>(thread) * bytes;
    if (task.tokens > 0) kernel_table().sequence_attention(task);
  });
}

void pool_rows(TensorView x, std::span<const int32_t> offsets, Pooling pooling, TensorView y, tensor::Stream& stream) {
  const int64_t width = x.shape[-1];
  const auto sequences = static_cast<int64_t>(offsets.size()) - 1;
  SW_CHECK(y.elements() == sequences * width, "pooling to " + to_string(y.shape));
  const float* in = x.as<float>();
  float* out = y.as<float>();
  stream.parallel_for(sequences, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t first = offsets[static_cast<size_t>(s)], last = offsets[static_cast<size_t>(s + 1)] - 1;
      float* target = out + s * width;
      SW_CHECK(first <= last, "pooling an empty sequence");
      const float* row = in + (pooling == Pooling::kLast ? last : first) * width;
      std::memcpy(target, row, static_cast<size_t>(width) * 4);
      if (pooling == Pooling::kFirst || pooling == Pooling::kLast) continue;
      for (int64_t t = first + 1; t <= last; ++t) {
        row = in + t * width;
        if (pooling == Pooling::kMax) {
          for (int64_t i = 0; i < width; ++i) target[i] = std::max(target[i], row[i]);
        } else {
          kernel_table().add(target, row, width);
        }
      }
      if (pooling == Pooling::kMax) continue;
      const auto count = static_cast<float>(last - first + 1);
      const float scale = 1.0f / (pooling == Pooling::kMean ? count : std::sqrt(count));
      for (int64_t i = 0; i < width; ++i) target[i] *= scale;
    }
  });
}

}  // namespace spillway::kernels::cpu
