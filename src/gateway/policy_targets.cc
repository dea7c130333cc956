#include "gateway/policy_targets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

namespace spillway::gateway {
namespace {

bool is_tier(std::string_view target) {
  return std::ranges::any_of(std::array{Tier::kEdge, Tier::kCentre, Tier::kProvider},
                             [&](Tier tier) { return tier_name(tier) == target; });
}

bool may_be(std::string_view target, const UpstreamOptions& upstream) {
  const bool pattern = target.ends_with('*');
  if (pattern) target.remove_suffix(1);
  const std::string& name = upstream.info.name;
  if (upstream.discovery == UpstreamOptions::Discovery::kNone)
    return pattern ? name.starts_with(target) : name == target;
  const std::string found = name + "-";
  return target.starts_with(found) || (pattern && found.starts_with(target));
}

Status check(std::string_view targets, const std::vector<UpstreamOptions>& upstreams) {
  while (!targets.empty()) {
    const std::string_view target = targets.substr(0, targets.find('|'));
    targets.remove_prefix(std::min(targets.size(), target.size() + 1));
    if (is_tier(target)) continue;
    if (std::ranges::any_of(upstreams, [&](const auto& upstream) { return may_be(target, upstream); })) continue;
    std::vector<std::string> names;
    for (const UpstreamOptions& upstream : upstreams) {
      const bool found_later = upstream.discovery != UpstreamOptions::Discovery::kNone;
      names.push_back(upstream.info.name + (found_later ? "-*" : ""));
    }
    return invalid(fmt::format("expected an upstream ({}) or a tier, found \"{}\"", fmt::join(names, ", "), target));
  }
  return {};
}

}  // namespace

Status check_policy_targets(const std::vector<std::string>& policies, const std::vector<UpstreamOptions>& upstreams) {
  for (size_t i = 0; i < policies.size(); ++i) {
    const auto spec = parse_policy_spec(policies[i]);
    if (!spec.ok()) continue;  // told by PolicyChain
    for (const char* option : {"upstream", "use", "prefer", "avoid"}) {
      const auto given = spec->options.find(option);
      if (given == spec->options.end()) continue;
      const Status checked = check(given->second, upstreams);
      if (!checked.ok())
        return Error(checked.error()).in(fmt::format("gateway.policies[{}] {}: {}", i, spec->name, option));
    }
  }
  return {};
}

Status check_aliases(const std::map<std::string, std::string>& aliases, const std::vector<UpstreamOptions>& upstreams) {
  std::set<std::string> models;
  for (const UpstreamOptions& upstream : upstreams) {
    if (upstream.info.models.empty()) return {};
    models.insert(upstream.info.models.begin(), upstream.info.models.end());
  }
  for (const auto& [alias, model] : aliases) {
    if (models.contains(model)) continue;
    const char* why = aliases.contains(model) ? ", itself an alias" : "";
    return invalid(fmt::format("gateway.aliases: {}: expected a model of the upstreams' ({}), found \"{}\"{}", alias,
                               fmt::join(models, ", "), model, why));
  }
  return {};
}

}  // namespace spillway::gateway
