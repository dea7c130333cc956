// Loops over a row of logits, written so that compilers vectorise them; compiled for AVX2 and AVX-512 too, chosen at
// start.
#pragma once

#include <cstdint>
#include <span>

namespace spillway::engine {

constexpr int kRowBlock = 64;

float row_max(std::span<const float> row);
// The lowest index of the row's largest value.
int32_t row_find(std::span<const float> row, float value);
// Sum of exp((x - max) * scale); relative error below 1e-6 an element.
double row_exp_sum(std::span<const float> row, float max, float scale);

// The index with the largest row[i] * scale + gumbel(key, i); ties to the lowest index. -inf never wins unless all are.
int32_t row_gumbel_argmax(std::span<const float> row, float scale, uint64_t key);
// The noise of one index.
double gumbel(uint64_t key, int32_t index);

}  // namespace spillway::engine
