#include <cmath>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {

void rope(const RopeArgs& args, tensor::Stream& stream) {
  const int64_t tokens = args.positions.elements();
  if (tokens == 0) return;
  const int64_t row = args.x.elements() / tokens;
  const int64_t pairs = args.cos_sin.shape[2];
  SW_CHECK(args.cos_sin.shape.rank() == 3 && args.cos_sin.shape[1] == 2, "cos_sin " + to_string(args.cos_sin.shape));
  SW_CHECK(args.heads > 0 && args.offset >= 0 && args.offset + 2 * pairs <= args.head_dim &&
               args.x_offset + int64_t{args.heads} * args.head_dim <= row && row * tokens == args.x.elements(),
           "rotary elements outside the rows " + to_string(args.x.shape));
  float* x = args.x.as<float>();
  const float* table = args.cos_sin.as<float>();
  const int32_t* positions = args.positions.as<int32_t>();
  stream.parallel_for(tokens, 8192 / (args.heads * pairs) + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      SW_CHECK(positions[t] >= 0 && positions[t] < args.cos_sin.shape[0], "position outside the rotary table");
      const float* angles = table + positions[t] * 2 * pairs;
      RopeTask task;
      task.cosines = angles;
      task.sines = angles + pairs;
      task.pairs = static_cast<int>(pairs);
      task.interleaved = args.pairs == RopePairs::kInterleaved;
      for (int h = 0; h < args.heads; ++h) {
        task.x = x + t * row + args.x_offset + int64_t{h} * args.head_dim + args.offset;
        kernel_table().rope(task);
      }
    }
  });
}

void fill_rope_table(tensor::TensorView inv_freq, float factor, tensor::TensorView cos_sin, tensor::Stream& stream) {
  const int64_t pairs = inv_freq.elements();
  SW_CHECK(cos_sin.shape.rank() == 3 && cos_sin.shape[1] == 2 && cos_sin.shape[2] == pairs,
           "cos_sin " + to_string(cos_sin.shape) + " for inverse frequencies " + to_string(inv_freq.shape));
  const float* frequency = inv_freq.as<float>();
  float* table = cos_sin.as<float>();
  stream.parallel_for(cos_sin.shape[0], 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(p) * static_cast<double>(frequency[i]);
        table[2 * p * pairs + i] = static_cast<float>(factor * std::cos(angle));
        table[(2 * p + 1) * pairs + i] = static_cast<float>(factor * std::sin(angle));
      }
    }
  });
}

}  // namespace spillway::kernels::cpu
