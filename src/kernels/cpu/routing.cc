#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/operations.h"

namespace spillway::kernels::cpu {
namespace {

using Options = RoutingOptions;
constexpr float kExcluded = -std::numeric_limits<float>::infinity();

void score(const float* logits, int experts, Options::Score kind, float* scores) {
  if (kind == Options::Score::kSigmoid) {
    for (int e = 0; e < experts; ++e) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    return;
  }
  const float largest = *std::max_element(logits, logits + experts);
  float total = 0;
  for (int e = 0; e < experts; ++e) total += scores[e] = std::exp(logits[e] - largest);
  for (int e = 0; e < experts; ++e) scores[e] /= total;
}

// The index of the largest value, the lower one of equals.
int best_of(const float* values, int count) {
  return static_cast<int>(std::max_element(values, values + count) - values);
}

// Excludes the experts of all groups but the best.
void keep_groups(float* choice, int experts, const Options& options, std::vector<float>& group_scores) {
  if (options.groups == options.groups_per_token) return;
  const int size = experts / options.groups;
  group_scores.resize(static_cast<size_t>(options.groups));
  for (int g = 0; g < options.groups; ++g) {
    float first = kExcluded, second = kExcluded;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else if (choice[e] > second) {
        second = choice[e];
      }
    }
    group_scores[static_cast<size_t>(g)] = size > 1 ? first + second : first;
  }
  std::vector<bool> kept(static_cast<size_t>(options.groups));
  for (int i = 0; i < options.groups_per_token; ++i) {
    const auto best = static_cast<size_t>(best_of(group_scores.data(), options.groups));
    kept[best] = true;
    group_scores[best] = kExcluded;
  }
  for (int e = 0; e < experts; ++e) {
    if (!kept[static_cast<size_t>(e / size)]) choice[e] = kExcluded;
  }
}

}  // namespace

void route_tokens(tensor::TensorView logits, tensor::TensorView bias, const RoutingOptions& options,
                  tensor::TensorView ids, tensor::TensorView weights, tensor::Stream& stream) {
  const auto experts = static_cast<int>(logits.shape[-1]);
  const int64_t tokens = logits.elements() / experts;
  const int slots = options.experts_per_token;
  SW_CHECK(options.groups > 0 && experts % options.groups == 0 && options.groups_per_token <= options.groups,
           "groups that do not divide the experts");
  SW_CHECK(slots > 0 && slots <= experts / options.groups * options.groups_per_token, "more experts a token than kept");
  SW_CHECK(ids.elements() == tokens * slots && weights.elements() == tokens * slots, "ids " + to_string(ids.shape));
  SW_CHECK(bias.empty() || bias.elements() == experts, "bias of another size than the experts");
  const float* in = logits.as<float>();
  const float* added = bias.empty() ? nullptr : bias.as<float>();
  int32_t* id = ids.as<int32_t>();
  float* weight = weights.as<float>();
  stream.parallel_for(tokens, 16, [&](int64_t begin, int64_t end, int) {
    std::vector<float> scores(static_cast<size_t>(experts));
    std::vector<float> choice(scores.size());
    std::vector<float> group_scores;
    for (int64_t t = begin; t < end; ++t) {
      score(in + t * experts, experts, options.score, scores.data());
      choice = scores;
      for (int e = 0; added != nullptr && e < experts; ++e) choice[static_cast<size_t>(e)] += added[e];
      keep_groups(choice.data(), experts, options, group_scores);
      float total = 0;
      for (int s = 0; s < slots; ++s) {
        const int best = best_of(choice.data(), experts);
        choice[static_cast<size_t>(best)] = kExcluded;
        id[t * slots + s] = best;
        weight[t * slots + s] = scores[static_cast<size_t>(best)];
        total += scores[static_cast<size_t>(best)];
      }
      const float factor = options.normalize ? options.scale / (total + 1e-20f) : options.scale;
      for (int s = 0; s < slots; ++s) weight[t * slots + s] *= factor;
    }
  });
}

}  // namespace spillway::kernels::cpu
