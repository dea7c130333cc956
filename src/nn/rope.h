// Rotary position embedding: which frequency each pair of a head turns at, by the checkpoint's scaling rule, and the
// table of cosines and sines by position. Owned by the model; the table is filled on the engine's thread as far as
// positions have come.
#pragma once

#include <vector>

#include "kernels/rope.h"

namespace spillway::nn {

struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kYarn };
  Kind kind = Kind::kNone;
  double factor = 1;
  double original_max_position = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  double mscale = 0, mscale_all_dim = 0;             // yarn; 0: not given
  double attention_factor = 0;                       // yarn; 0: by the rule
  bool truncate = true;                              // yarn: round the correction range to whole dimensions
};

// Angle a position turns pair i of a head of `dim` rotated elements, [dim / 2].
std::vector<double> rope_frequencies(int dim, double theta, const RopeScaling& scaling);

// What YaRN multiplies cosines and sines by; 1 for the other kinds.
double rope_magnitude(const RopeScaling& scaling);

// YaRN's 0.1 m ln(factor) + 1, or 1 without scaling: DeepSeek multiplies the softmax scale by its square.
double yarn_mscale(double factor, double mscale);

// cos_sin [positions_max, 2, dim / 2] for kernels::rope. Address space for all positions is taken at load; a row
// becomes resident when a sequence first gets that long, for contexts of 160k tokens would cost more than they are
// worth.
class RopeTable {
 public:
  RopeTable(int dim, double theta, const RopeScaling& scaling, int positions_max);

  // On another device: all rows, filled once.
  void place(tensor::Stream& stream);

  // The table, of which the first `positions` rows (and more) are filled.
  tensor::TensorView rows(int64_t positions, tensor::Stream& stream);

 private:
  static constexpr int64_t kFirstRows = 1024;

  float magnitude_;
  tensor::Tensor inverse_frequencies_;
  tensor::Tensor table_;
  int64_t filled_ = 0;
  bool placed_ = false;
};

}  // namespace spillway::nn
