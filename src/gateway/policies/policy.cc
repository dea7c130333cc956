#include "gateway/policy.h"

#include <fmt/format.h>

#include <algorithm>

namespace spillway::gateway {

std::string_view tier_name(Tier tier) {
  return tier == Tier::kCentre ? "centre" : tier == Tier::kEdge ? "edge" : "provider";
}

Result<Tier> parse_tier(std::string_view text) {
  if (text == "centre" || text == "center") return Tier::kCentre;
  if (text == "edge") return Tier::kEdge;
  if (text == "provider") return Tier::kProvider;
  return invalid(fmt::format("expected centre, edge or provider, found \"{}\"", text));
}

std::string_view health_name(Health health) {
  return health == Health::kHealthy ? "healthy" : health == Health::kProbing ? "probing" : "down";
}

std::string_view RequestFeatures::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers) {
    if (name == lower_case_name) return value;
  }
  return {};
}

int64_t output_tokens_expected(const RequestFeatures& request) {
  const int64_t expected = request.output_tokens_expected > 0 ? request.output_tokens_expected : kOutputTokensAssumed;
  return request.max_tokens > 0 ? std::min(expected, request.max_tokens) : expected;
}

double cost_of(const RequestFeatures& request, const Price& price, double cached_tokens) {
  const double cached = std::min(cached_tokens, static_cast<double>(request.prompt_tokens));
  const double fresh = static_cast<double>(request.prompt_tokens) - cached;
  return (fresh * price.input + cached * price.cached_input +
          static_cast<double>(output_tokens_expected(request)) * price.output) *
         1e-6;
}

void Deliberation::note(Candidate& candidate, std::string_view policy, std::string text) const {
  if (explain) candidate.reasons.push_back(fmt::format("{}: {}", policy, text));
}

Result<PolicySpec> parse_policy_spec(std::string_view text) {
  PolicySpec spec;
  for (size_t begin = text.find_first_not_of(' '); begin != std::string_view::npos;) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    begin = text.find_first_not_of(' ', end);
    if (spec.name.empty()) {
      spec.name = word;
      continue;
    }
    const size_t equals = word.find('=');
    if (equals == 0 || equals == std::string_view::npos)
      return invalid(fmt::format("{}: expected option=value, found \"{}\"", spec.name, word));
    const bool is_new = spec.options.emplace(word.substr(0, equals), word.substr(equals + 1)).second;
    if (!is_new) return invalid(fmt::format("{}: {} is given twice", spec.name, word.substr(0, equals)));
  }
  if (spec.name.empty()) return invalid("expected the name of a policy, found nothing");
  return spec;
}

}  // namespace spillway::gateway
