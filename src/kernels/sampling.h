// Sampling on the device: from rows of logits to tokens and their logprobs without a word to the host. The device's
// counterpart of engine/sampler.h, which is its specification: the same draws from the same logits (noise keyed by seed,
// position and token, base/draw.h), filters in Hugging Face's order (temperature, top_k, top_p of what is left, min_p).
// Nothing is allocated or synchronised, so a captured step may end with it and the next one read `tokens`. Any thread.
// Not its job: banned stop tokens before a minimum length, the best alternatives' logprobs (those rows go to the host).
#pragma once

#include <cstddef>
#include <cstdint>

namespace spillway::kernels {

// Of one row; written by the host before the step.
struct SampleRow {
  uint64_t seed = 0;
  int64_t position = 0;      // of the token to be drawn
  float temperature = 1.0f;  // 0 or less: greedy, ties to the lowest token
  float top_p = 1.0f;        // (0, 1]; 1: off
  float min_p = 0.0f;        // [0, 1)
  int32_t top_k = 0;         // 0: off
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  int32_t adjust_begin = 0;  // the row's entries of Sampling::adjustments, each token once
  int32_t adjust_end = 0;
  int32_t mask = -1;  // row of Sampling::masks; negative: every token is allowed
};
static_assert(sizeof(SampleRow) == 56);

// A token whose logit changes before it is sampled: by penalties if it occurred, then by a bias.
struct LogitAdjustment {
  int32_t token = 0;
  int32_t generated = -1;  // how often it was generated; 0: in the prompt only; negative: it did not occur
  float bias = 0.0f;
  float raw = 0.0f;  // the kernel's: the logit as it was
};

struct Sampling {
  float* logits = nullptr;  // f32 [rows, logits_stride]; adjusted tokens are changed in place
  int64_t logits_stride = 0;
  int rows = 0;
  int vocab = 0;  // tokens from here on are padding of the head
  const SampleRow* params = nullptr;       // [rows]
  LogitAdjustment* adjustments = nullptr;  // null if no row has any
  const uint64_t* masks = nullptr;         // a bit a token, rows of mask_words; null if no row has one
  int64_t mask_words = 0;
  int32_t* tokens = nullptr;  // [rows]; -1: no token had a finite logit
  float* logprobs = nullptr;  // [rows]: of the distribution before adjustments and filters; null: not wanted
  void* workspace = nullptr;  // sampling_workspace_bytes; contents need not survive
};

}  // namespace spillway::kernels
