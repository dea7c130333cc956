#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "gateway/policies/random.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr size_t kPoliciesMax = 64;
constexpr uint64_t kTieStream = 1;

// Why the upstream cannot take the request at all; nothing where it can.
std::optional<std::string> unfit(const RequestFeatures& request, const UpstreamState& upstream) {
  const UpstreamInfo& info = *upstream.info;
  if (upstream.health == Health::kDown) return "down";
  if (!info.models.empty() && std::find(info.models.begin(), info.models.end(), request.model) == info.models.end())
    return "does not serve " + request.model;
  if (request.images && !info.images) return "takes no images";
  if (request.tools && !info.tools) return "takes no tools";
  const int64_t length = request.prompt_tokens + request.max_tokens;
  if (info.context_tokens_max > 0 && length > info.context_tokens_max)
    return fmt::format("context of {} tokens, the request may need {}", info.context_tokens_max, length);
  return std::nullopt;
}

Result<std::unique_ptr<Policy>> make_policy(const PolicySpec& spec) {
  std::vector<std::string_view> names;
  for (const PolicyRow& row : policy_rows()) {
    names.push_back(row.name);
    if (spec.name != row.name) continue;
    PolicyOptions options(spec);
    std::unique_ptr<Policy> policy = row.make(options);
    SW_TRY(options.done());
    return policy;
  }
  return invalid(fmt::format("expected one of {}, found \"{}\"", fmt::join(names, ", "), spec.name));
}

}  // namespace

Result<PolicyChain> PolicyChain::parse(std::span<const PolicySpec> specs) {
  if (specs.size() > kPoliciesMax)
    return invalid(fmt::format("gateway.policies: expected at most {}, found {}", kPoliciesMax, specs.size()));
  PolicyChain chain;
  for (size_t i = 0; i < specs.size(); ++i) {
    auto policy = make_policy(specs[i]);
    if (!policy.ok()) return std::move(policy).error().in(fmt::format("gateway.policies[{}] {}", i, specs[i].name));
    chain.policies_.push_back(std::move(*policy));
  }
  return chain;
}

Result<PolicyChain> PolicyChain::parse(std::span<const std::string> texts) {
  std::vector<PolicySpec> specs;
  for (size_t i = 0; i < texts.size(); ++i) {
    auto spec = parse_policy_spec(texts[i]);
    if (!spec.ok()) return std::move(spec).error().in(fmt::format("gateway.policies[{}]", i));
    specs.push_back(std::move(*spec));
  }
  return parse(std::span<const PolicySpec>(specs));
}

Decision PolicyChain::decide(const RequestFeatures& request, std::span<const UpstreamState> upstreams, TimePoint now,
                             const PrefixIndex* prefixes, bool explain) const {
  Decision decision;
  decision.order.reserve(upstreams.size());
  for (size_t i = 0; i < upstreams.size(); ++i) {
    if (auto reason = unfit(request, upstreams[i])) {
      if (explain) decision.refused.push_back({i, std::move(*reason)});
      continue;
    }
    Candidate candidate;
    candidate.upstream = i;
    candidate.cost = cost_of(request, upstreams[i].info->price, 0);
    candidate.tie = hash_text(upstreams[i].info->name, mix_bits(request.seed + kTieStream));
    decision.order.push_back(std::move(candidate));
  }
  Deliberation deliberation{request, upstreams, now, prefixes, explain, decision};
  const auto before = [&](const Candidate& a, const Candidate& b) {
    const auto rank = [&](const Candidate& c) {
      return std::tuple(c.band, upstreams[c.upstream].health != Health::kHealthy, c.score, c.tie);
    };
    return rank(a) < rank(b);
  };
  const auto first = [&]() -> std::optional<size_t> {
    const auto best = std::min_element(decision.order.begin(), decision.order.end(), before);
    return best == decision.order.end() ? std::nullopt : std::optional(best->upstream);
  };
  std::optional<size_t> leader = first();
  for (const auto& policy : policies_) {
    policy->apply(deliberation);
    const std::optional<size_t> next = first();
    if (next != leader || decision.policy.empty()) decision.policy = policy->name();
    leader = next;
  }
  std::sort(decision.order.begin(), decision.order.end(), before);
  return decision;
}

std::vector<std::string_view> PolicyChain::names() const {
  std::vector<std::string_view> names;
  for (const auto& policy : policies_) names.push_back(policy->name());
  return names;
}

}  // namespace spillway::gateway
