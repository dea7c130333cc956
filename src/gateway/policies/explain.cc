#include "gateway/policies/explain.h"

#include <fmt/format.h>

namespace spillway::gateway {

std::string explain_decision(const RequestFeatures& request, std::span<const UpstreamState> upstreams,
                             const Decision& decision) {
  std::string text = fmt::format("request: model {}, about {} prompt tokens, {} expected in answer{}{}{}{}{}\n",
                                 request.model, request.prompt_tokens, output_tokens_expected(request),
                                 request.max_tokens > 0 ? fmt::format(" (max_tokens {})", request.max_tokens) : "",
                                 request.language.empty() ? "" : ", " + request.language,
                                 request.images ? ", images" : "", request.tools ? ", tools" : "",
                                 request.priority == 0 ? "" : fmt::format(", priority {}", request.priority));
  if (decision.order.empty()) {
    text += "nobody may take it\n";
  } else {
    text += fmt::format("goes to {}{}\n", upstreams[decision.order[0].upstream].info->name,
                        decision.policy.empty() ? ", by chance" : fmt::format(" (decided by {})", decision.policy));
  }
  if (decision.shadow) text += fmt::format("and a copy to {}\n", upstreams[*decision.shadow].info->name);
  for (size_t i = 0; i < decision.order.size(); ++i) {
    const Candidate& candidate = decision.order[i];
    const UpstreamState& upstream = upstreams[candidate.upstream];
    text += fmt::format("{:>3}. {:<20} {:<9} band {} score {:.4f}", i + 1, upstream.info->name,
                        tier_name(upstream.info->tier), candidate.band, candidate.score);
    if (candidate.predicted_s > 0)
      text += fmt::format("  first token {:.3f} s, last {:.3f} s", candidate.predicted_first_s, candidate.predicted_s);
    text += fmt::format("  ${:.6f}{}\n", candidate.cost, upstream.health == Health::kProbing ? "  probing" : "");
    for (const std::string& reason : candidate.reasons) text += "       " + reason + "\n";
  }
  for (const Refusal& refusal : decision.refused)
    text += fmt::format("  -  {:<20} {}\n", upstreams[refusal.upstream].info->name, refusal.reason);
  return text;
}

}  // namespace spillway::gateway
