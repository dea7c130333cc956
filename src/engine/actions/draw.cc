#include <algorithm>

#include "engine/actions/batch.h"

namespace spillway::engine {
namespace {

SampleInput input_for(const State& state, const Sequence& sequence) {
  const Request& request = *sequence.request;
  SampleInput input;
  input.params = &request.sampling;
  input.counts = &sequence.counts;
  input.allowed = sequence.allowed;
  if (sequence.generated_tokens() < request.min_tokens) input.banned = request.stop_tokens;
  input.seed = sequence.seed;
  input.position = static_cast<int64_t>(sequence.tokens.size());
  input.vocab_limit = state.limits.vocab;
  return input;
}

void refresh_mask(const State& state, Sequence& sequence) {
  if (!sequence.request->constraint) return;
  sequence.allowed.resize((state.limits.vocab + 63) / 64);
  sequence.request->constraint->allowed(sequence.allowed);
}

FinishReason end_after(const State& state, const Sequence& sequence, int32_t token) {
  const Request& request = *sequence.request;
  if (std::ranges::find(request.stop_tokens, token) != request.stop_tokens.end()) return FinishReason::kStop;
  if (sequence.generated_tokens() >= request.max_tokens) return FinishReason::kLength;
  if (static_cast<int>(sequence.tokens.size()) >= state.limits.context_tokens) return FinishReason::kLength;
  return FinishReason::kNone;
}

void take_token(Sequence& sequence, int32_t token) {
  sequence.tokens.push_back(token);
  if (uses_penalties(sequence.request->sampling)) sequence.counts.add_generated(token);
  if (sequence.request->constraint) sequence.request->constraint->accept(token);
}

}  // namespace

void keep_prompt_logprobs(const State& state, Work& work, const LogitsRows& logits, SampleScratch& scratch) {
  Sequence& sequence = *work.sequence;
  auto& kept = sequence.prompt_logprobs;
  if (kept.empty()) kept.push_back({.token = sequence.tokens[0], .logprob = 0, .top = {}});
  const int top = std::max(0, sequence.request->top_logprobs);
  for (int row = 0; row < work.rows; ++row) {
    const int predicted = work.start + row + 1;
    if (predicted >= sequence.prompt_tokens()) break;
    if (predicted != static_cast<int>(kept.size())) continue;  // kept before a preemption
    kept.push_back(with_logprobs(logits.row(work.logits_begin + row), state.limits.vocab, sequence.tokens[predicted],
                                 top, scratch));
  }
}

void draw(const State& state, Work& work, const LogitsRows& logits, SampleScratch& scratch) {
  Sequence& sequence = *work.sequence;
  const Request& request = *sequence.request;
  if (request.max_tokens <= 0) {  // only the prompt was of interest
    work.finish = FinishReason::kLength;
    return;
  }
  const int64_t first = work.logits_begin + work.logits_rows - 1 - work.draft;
  for (int i = 0; i <= work.draft; ++i) {
    const bool drawn = !work.drawn.empty();
    const auto row = drawn ? std::span<const float>() : logits.row(first + i);
    refresh_mask(state, sequence);
    const auto token =
        drawn ? std::optional(work.drawn[static_cast<size_t>(i)]) : sample(row, input_for(state, sequence), scratch);
    if (!token || *token < 0) {
      work.finish = FinishReason::kFailed;
      return;
    }
    take_token(sequence, *token);
    work.tokens.push_back(request.top_logprobs < 0
                              ? TokenEvent{.token = *token, .logprob = 0, .top = {}}
                              : with_logprobs(row, state.limits.vocab, *token, request.top_logprobs, scratch));
    work.finish = end_after(state, sequence, *token);
    if (i == work.draft) break;
    ++work.proposed;
    if (*token != work.draft_token) break;
    ++work.accepted;
    if (work.finish != FinishReason::kNone) break;
  }
}

int32_t draw_draft(const State& state, Sequence& sequence, std::span<const float> row, SampleScratch& scratch) {
  refresh_mask(state, sequence);
  return sample(row, input_for(state, sequence), scratch).value_or(-1);
}

}  // namespace spillway::engine
