// verify: runs a model on the inputs of a safetensors file and compares every output that the file names with what the
// reference gave: for whoever ports a model. Any thread; loads the model itself.
#pragma once

#include <string>
#include <vector>

#include "models/loader.h"

namespace spillway::models {

// Of a language model the file holds input_ids i32|i64 [sequences, tokens] and any of
//   logits, logits_dequantised  f32 [sequences, tokens, vocab]
//   greedy                      i32|i64 [1, tokens]: the first row's prompt and its greedy continuation
// Of an encoder input_ids, attention_mask and token_type_ids (both optional) and any of
//   last_hidden_state           f32 [sequences, tokens, hidden]; rows outside the mask are not compared
//   mean_pooled_l2              f32 [sequences, hidden]: their normalised mean
//   embedding, pooler_output, logits, sparse   f32 [sequences, width]: the model's own outputs
// Of a vision model pixel_values f32 [images, channels, height, width] and logits or embedding.
struct VerifyOptions {
  LoadOptions load;
  std::string expected_path;
  double tolerance = 0;  // 0: default_tolerance()
};

struct VerifyRow {
  std::string name;
  std::string shape;
  double max_abs = 0;     // largest difference; for greedy the number of tokens that differ
  double max_rel = 0;     // the same over the largest expected magnitude
  double median_rel = 0;  // of the rows' (tokens') own largest differences
  double cosine = 1;      // the least between a row and its reference
  double tolerance = 0;
  bool passed = false;
};

struct VerifyReport {
  std::string architecture;
  std::string precision;
  std::vector<VerifyRow> rows;
  bool passed() const;
};

Result<VerifyReport> verify(const VerifyOptions& options);
Result<VerifyReport> verify_one_shot(const VerifyOptions& options);  // what verify() does for encoders and vision

// Integers of an i32 or i64 tensor, each in [0, limit).
Result<std::vector<int32_t>> read_ids(const tensor::TensorView& view, const std::string& name, int limit);
// Fills row's errors: reference and found are rows of `width`.
void compare_rows(const std::vector<float>& reference, const std::vector<float>& found, size_t width, VerifyRow& row);

// The tolerance of logits relative to their largest magnitude: of every row in fp32; of the median row in bf16 and
// int8, since a rounding that picks another expert moves a single row far, in any implementation.
double default_tolerance(const std::string& precision);

}  // namespace spillway::models
