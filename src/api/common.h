// What the requests and responses of all protocols share: sampling fields, usage, logprobs, finish reasons. Plain
// values, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/errors.h"

namespace spillway::api {

// Absent means: the model's generation_config, then the server's default. Ranges are checked when parsed.
struct Sampling {
  std::optional<float> temperature;         // [0, 2]
  std::optional<float> top_p;               // (0, 1]
  std::optional<int> top_k;                 // 0: off (-1 is accepted as off)
  std::optional<float> min_p;               // [0, 1]
  std::optional<float> frequency_penalty;   // [-2, 2]
  std::optional<float> presence_penalty;    // [-2, 2]
  std::optional<float> repetition_penalty;  // (0, 2]
  std::optional<uint64_t> seed;
  std::optional<int> max_tokens;  // max_tokens or max_completion_tokens; >= 1 (0 only for echo completions)
  int min_tokens = 0;
  bool ignore_eos = false;
  int n = 1;                      // [1, 128]
  std::vector<std::string> stop;  // at most 16, none empty
  std::vector<int32_t> stop_token_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
};

// priority field: "low" | "normal" | "high", or a number (negative low, 0 normal, positive high).
enum class RequestPriority : int8_t { kLow = -1, kNormal = 0, kHigh = 1 };

struct StreamOptions {
  bool stream = false;
  bool include_usage = false;
};

enum class FinishReason { kStop, kLength, kToolCalls, kContentFilter, kInsufficientSystemResource };
std::string_view finish_reason_name(FinishReason reason);

struct Usage {
  int prompt_tokens = 0;
  int cached_tokens = 0;      // of the prompt, from the prefix cache
  int completion_tokens = 0;  // reasoning included
  int reasoning_tokens = 0;
  int draft_tokens = 0;     // proposed by speculation
  int accepted_tokens = 0;  // of them, kept
};

struct TopLogprob {
  std::string bytes;  // the token's bytes, perhaps not whole UTF-8
  float logprob = 0;
};

struct TokenLogprobs {
  std::string bytes;
  float logprob = 0;  // a token outside what is known reports -9999
  std::vector<TopLogprob> top;
};

// What all chunks and the response of one request share.
struct ResponseHead {
  std::string id;       // "chatcmpl-...", "cmpl-...", "msg_..."
  int64_t created = 0;  // unix seconds
  std::string model;
  std::string fingerprint;  // system_fingerprint; empty: left out
};

// Bytes as text for JSON: invalid UTF-8 becomes U+FFFD.
std::string utf8_lossy(std::string_view bytes);

}  // namespace spillway::api
