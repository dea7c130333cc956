#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/row_ops.h"
#include "kv/block_hash.h"

namespace spillway::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
using Candidate = SampleScratch::Candidate;

bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

void apply_penalties(std::span<float> row, const SamplingParams& params, const TokenCounts& counts) {
  for (const auto& count : counts.counts()) {
    if (static_cast<size_t>(count.token) >= row.size()) continue;
    float& logit = row[count.token];
    if (params.repetition_penalty != 1.0f) {
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
    if (count.generated > 0) logit -= params.frequency_penalty * count.generated + params.presence_penalty;
  }
}

void apply_mask(std::span<float> row, std::span<const uint64_t> allowed) {
  for (size_t word = 0; word * 64 < row.size(); ++word) {
    const uint64_t bits = word < allowed.size() ? allowed[word] : 0;
    if (bits == ~uint64_t{0}) continue;
    const auto block = row.subspan(word * 64, std::min<size_t>(64, row.size() - word * 64));
    if (bits == 0) {
      std::ranges::fill(block, kNever);
      continue;
    }
    for (size_t i = 0; i < block.size(); ++i) {
      if (!((bits >> i) & 1)) block[i] = kNever;
    }
  }
}

void apply_banned(std::span<float> row, std::span<const int32_t> banned) {
  std::vector<Candidate> saved;
  for (const int32_t token : banned) {
    if (token < 0 || static_cast<size_t>(token) >= row.size()) continue;
    saved.push_back({.logit = row[token], .token = token});
    row[token] = kNever;
  }
  // A grammar that can only end has the last word over a minimum length.
  if (!saved.empty() && row_max(row) == kNever) {
    for (const Candidate& candidate : saved) row[candidate.token] = std::max(row[candidate.token], candidate.logit);
  }
}

// The row after everything that changes logits; the input itself where nothing does.
std::span<const float> adjusted(std::span<const float> row, const SampleInput& input, std::vector<float>& copy) {
  const SamplingParams& params = *input.params;
  const bool penalties = input.counts != nullptr && uses_penalties(params);
  if (!penalties && params.logit_bias.empty() && input.allowed.empty() && input.banned.empty()) return row;
  copy.assign(row.begin(), row.end());
  if (penalties) apply_penalties(copy, params, *input.counts);
  for (const auto& [token, bias] : params.logit_bias) {
    if (token >= 0 && static_cast<size_t>(token) < copy.size()) copy[token] += bias;
  }
  if (!input.allowed.empty()) apply_mask(copy, input.allowed);
  if (!input.banned.empty()) apply_banned(copy, input.banned);
  return copy;
}

// The best candidates of the row, sorted, at least those within `width` of the maximum.
void collect(std::span<const float> row, float threshold, std::vector<Candidate>& candidates) {
  candidates.clear();
  for (size_t begin = 0; begin < row.size(); begin += kRowBlock) {
    const size_t end = std::min<size_t>(begin + kRowBlock, row.size());
    if (row_max(row.subspan(begin, end - begin)) < threshold) continue;
    for (size_t i = begin; i < end; ++i) {
      if (row[i] >= threshold && row[i] != kNever)
        candidates.push_back({.logit = row[i], .token = static_cast<int32_t>(i)});
    }
  }
}

// Sorted candidates with at least `count` of the row's best (all there are, if fewer).
void collect_count(std::span<const float> row, float max, size_t count, std::vector<Candidate>& candidates) {
  for (float width = 4;; width *= 2) {
    const bool all = width > 1e4f;
    collect(row, all ? kNever : max - width, candidates);
    if (candidates.size() >= count || all) break;
  }
  const size_t keep = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + keep, candidates.end(), better);
  candidates.resize(keep);
}

double weigh(std::vector<Candidate>& candidates, float max, float scale) {
  double mass = 0;
  for (Candidate& candidate : candidates) mass += candidate.weight = std::exp((candidate.logit - max) * scale);
  return mass;
}

// Keeps the best candidates whose weights just reach `needed`: halves by rank, without sorting what is surely in or
// out.
void cut_mass(std::vector<Candidate>& candidates, double needed) {
  auto begin = candidates.begin(), end = candidates.end();
  double mass = 0;  // of those before begin
  while (end - begin > 32) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, better);
    double upper = 0;
    for (auto it = begin; it != middle; ++it) upper += it->weight;
    if (mass + upper >= needed) {
      end = middle;
    } else {
      mass += upper;
      begin = middle;
    }
  }
  std::sort(begin, end, better);
  while (begin != end && mass < needed) mass += (begin++)->weight;
  candidates.erase(begin, candidates.end());
}

// Candidates that just hold the mass top_p of the row's distribution at this scale.
void collect_mass(std::span<const float> row, float max, float scale, float top_p, std::vector<Candidate>& candidates) {
  const double needed = top_p * row_exp_sum(row, max, scale);
  for (float width = 3;; width *= 2) {
    const bool all = width > 1e4f;
    collect(row, all ? kNever : max - width / scale, candidates);
    if (weigh(candidates, max, scale) >= needed || all) break;
  }
  cut_mass(candidates, needed);
}

// temperature, then top_k, then top_p of what is left, then min_p: the order of Hugging Face.
int32_t sample_filtered(std::span<const float> row, float max, const SampleInput& input, uint64_t key,
                        SampleScratch& scratch) {
  const SamplingParams& params = *input.params;
  const float scale = 1.0f / params.temperature;
  auto& candidates = scratch.candidates;
  if (params.top_k > 0) {
    collect_count(row, max, params.top_k, candidates);
    if (params.top_p < 1) cut_mass(candidates, params.top_p * weigh(candidates, max, scale));
  } else if (params.top_p < 1) {
    collect_mass(row, max, scale, params.top_p, candidates);
  } else {
    collect(row, max + std::log(params.min_p) * params.temperature, candidates);
  }
  const float floor = params.min_p > 0 ? max + std::log(params.min_p) * params.temperature : kNever;
  int32_t best = row_find(row, max);
  double best_value = static_cast<double>(max) * scale + gumbel(key, best);
  for (const Candidate& candidate : candidates) {
    if (candidate.logit < floor) continue;
    const double value = static_cast<double>(candidate.logit) * scale + gumbel(key, candidate.token);
    if (value > best_value || (value == best_value && candidate.token < best)) {
      best_value = value;
      best = candidate.token;
    }
  }
  return best;
}

}  // namespace

TokenCounts::Count& TokenCounts::at(int32_t token) {
  const auto it = std::ranges::lower_bound(counts_, token, {}, &Count::token);
  if (it != counts_.end() && it->token == token) return *it;
  return *counts_.insert(it, {token, 0, 0});
}

void TokenCounts::set_prompt(std::span<const int32_t> tokens) {
  std::vector<int32_t> sorted(tokens.begin(), tokens.end());
  std::ranges::sort(sorted);
  counts_.clear();
  for (const int32_t token : sorted) {
    if (counts_.empty() || counts_.back().token != token) counts_.push_back({token, 0, 0});
    ++counts_.back().prompt;
  }
}

uint64_t noise_key(uint64_t seed, int64_t position) {
  return kv::mix(seed ^ kv::mix(static_cast<uint64_t>(position) + 0x9e3779b97f4a7c15ull));
}

bool uses_penalties(const SamplingParams& params) {
  return params.frequency_penalty != 0 || params.presence_penalty != 0 || params.repetition_penalty != 1;
}

std::optional<int32_t> sample(std::span<const float> logits, const SampleInput& input, SampleScratch& scratch) {
  const SamplingParams& params = *input.params;
  const auto row = adjusted(logits.first(std::min<size_t>(logits.size(), input.vocab_limit)), input, scratch.logits);
  const float max = row_max(row);
  if (!std::isfinite(max)) return std::nullopt;
  if (params.temperature <= 0) return row_find(row, max);
  const uint64_t key = noise_key(input.seed, input.position);
  if (params.top_k > 0 || params.top_p < 1 || params.min_p > 0) return sample_filtered(row, max, input, key, scratch);
  return row_gumbel_argmax(row, 1.0f / params.temperature, key);
}

TokenEvent with_logprobs(std::span<const float> logits, int vocab_limit, int32_t token, int top,
                         SampleScratch& scratch) {
  const auto row = logits.first(std::min<size_t>(logits.size(), vocab_limit));
  const float max = row_max(row);
  const double normaliser = max + std::log(row_exp_sum(row, max, 1.0f));
  const auto logprob = [&](float logit) { return static_cast<float>(logit - normaliser); };
  TokenEvent event{.token = token, .logprob = logprob(row[token]), .top = {}};
  if (top > 0) {
    collect_count(row, max, top, scratch.candidates);
    event.top.reserve(scratch.candidates.size());
    for (const Candidate& candidate : scratch.candidates)
      event.top.push_back({candidate.token, logprob(candidate.logit)});
  }
  return event;
}

}  // namespace spillway::engine
