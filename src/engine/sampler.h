// Sampler: from a row of logits to a token, and its logprobs. Pure functions of (logits, parameters, counts, mask,
// seed, position): the same inputs give the same token whatever else runs, however often a sequence was preempted.
//
// Sampling is by Gumbel noise keyed by (seed, position, token): the token is the one with the largest logit /
// temperature + noise. So a draft drawn with the same noise from the draft layer's logits equals the token whenever the
// two distributions agree closely, and accepting it if and only if it equals the token leaves the output exactly as
// without drafts. Not its job: what a sequence is. Any thread, one Scratch a thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"

namespace spillway::engine {

// How often a sequence has each token: sorted by token, so that penalties touch only what occurred.
class TokenCounts {
 public:
  struct Count {
    int32_t token;
    int32_t prompt;
    int32_t generated;
  };
  void set_prompt(std::span<const int32_t> tokens);  // first
  void add_generated(int32_t token) { ++at(token).generated; }
  std::span<const Count> counts() const { return counts_; }

 private:
  Count& at(int32_t token);
  std::vector<Count> counts_;
};

// Everything but the logits.
struct SampleInput {
  const SamplingParams* params = nullptr;
  const TokenCounts* counts = nullptr;  // with penalties only
  std::span<const uint64_t> allowed;    // constraint mask, a bit a token; empty: all
  std::span<const int32_t> banned;      // stop tokens before min_tokens
  uint64_t seed = 0;
  int64_t position = 0;  // of the token to be drawn
  int vocab_limit = 0;   // tokens from here on are padding of the head
};

struct SampleScratch {
  struct Candidate {
    float logit;
    int32_t token;
    float weight = 0;  // of the distribution, relative to the likeliest token
  };
  std::vector<float> logits;
  std::vector<Candidate> candidates;
};

// nullopt when no token has a finite logit: the model has failed.
std::optional<int32_t> sample(std::span<const float> logits, const SampleInput& input, SampleScratch& scratch);

// Of the raw distribution: log-softmax over all tokens below vocab_limit. `top` of the best as well, best first, ties
// by id.
TokenEvent with_logprobs(std::span<const float> logits, int vocab_limit, int32_t token, int top,
                         SampleScratch& scratch);

// Of the noise with which a sequence's token at a position is drawn.
uint64_t noise_key(uint64_t seed, int64_t position);

bool uses_penalties(const SamplingParams& params);

}  // namespace spillway::engine
