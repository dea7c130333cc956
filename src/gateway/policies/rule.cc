// Requests with the named features use, prefer or avoid the named upstreams (by name or by tier):
//   rule tokens_min=8000 use=centre
//   rule language=zh|ja prefer=deepseek
//   rule tenant=free model=deepseek-* avoid=provider
//   rule header=x-class:batch images=true use=edge|cheap
// All conditions must hold. use drops everybody else, prefer moves the named before the others, avoid after them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

bool matches(std::string_view pattern, std::string_view text) {
  if (pattern.ends_with('*')) return text.starts_with(pattern.substr(0, pattern.size() - 1));
  return pattern == text;
}

bool any_matches(const std::vector<std::string>& patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(pattern, text); });
}

std::optional<bool> maybe(PolicyOptions& options, std::string_view name) {
  if (!options.given(name)) {
    options.text(name);
    return std::nullopt;
  }
  return options.boolean(name, false);
}

class Rule final : public Policy {
 public:
  explicit Rule(PolicyOptions& options)
      : tokens_min_(options.integer("tokens_min", 0, 0, kLarge)),
        tokens_max_(options.integer("tokens_max", kLarge, 0, kLarge)),
        output_min_(options.integer("max_tokens_min", 0, 0, kLarge)),
        output_max_(options.integer("max_tokens_max", kLarge, 0, kLarge)),
        priority_min_(options.integer("priority_min", -kLarge, -kLarge, kLarge)),
        models_(options.list("model")),
        tenants_(options.list("tenant")),
        languages_(options.list("language")),
        images_(maybe(options, "images")),
        tools_(maybe(options, "tools")),
        header_(options.text("header")) {
    if (!header_.empty() && header_.find(':') == std::string::npos) options.fail("header", "name:value");
    for (const auto& [verb, action] : {std::pair{"use", kUse}, {"prefer", kPrefer}, {"avoid", kAvoid}}) {
      std::vector<std::string> targets = options.list(verb);
      if (targets.empty()) continue;
      if (!targets_.empty()) options.fail(verb, "one of use, prefer and avoid");
      targets_ = std::move(targets);
      action_ = action;
    }
    if (targets_.empty()) options.fail("use", "upstreams or tiers to use, prefer or avoid");
  }

  std::string_view name() const override { return "rule"; }

  void apply(Deliberation& deliberation) const override {
    if (!holds(deliberation.request)) return;
    if (action_ == kUse) {
      deliberation.refuse_if([&](const Candidate& candidate) -> std::optional<std::string> {
        if (is_target(*deliberation.state(candidate).info)) return std::nullopt;
        return fmt::format("rule: only {}", fmt::join(targets_, ", "));
      });
      return;
    }
    for (Candidate& candidate : deliberation.decision.order) {
      const bool target = is_target(*deliberation.state(candidate).info);
      if (target != (action_ == kAvoid)) continue;
      ++candidate.band;
      if (deliberation.explain) deliberation.note(candidate, name(), target ? "avoided" : "others are preferred");
    }
  }

 private:
  static constexpr int64_t kLarge = 1'000'000'000;
  enum Action { kUse, kPrefer, kAvoid };

  bool holds(const RequestFeatures& request) const {
    const auto within = [](int64_t value, int64_t min, int64_t max) { return value >= min && value <= max; };
    if (!within(request.prompt_tokens, tokens_min_, tokens_max_)) return false;
    // A request without max_tokens may give any number.
    if (!within(request.max_tokens == 0 ? kLarge : request.max_tokens, output_min_, output_max_)) return false;
    if (request.priority < priority_min_) return false;
    if (!models_.empty() && !any_matches(models_, request.model)) return false;
    if (!tenants_.empty() && !any_matches(tenants_, request.tenant)) return false;
    if (!languages_.empty() && !any_matches(languages_, request.language)) return false;
    if (images_ && *images_ != request.images) return false;
    if (tools_ && *tools_ != request.tools) return false;
    if (header_.empty()) return true;
    const size_t colon = header_.find(':');
    return matches(std::string_view(header_).substr(colon + 1), request.header(header_.substr(0, colon)));
  }

  bool is_target(const UpstreamInfo& upstream) const {
    return any_matches(targets_, upstream.name) || any_matches(targets_, tier_name(upstream.tier));
  }

  const int64_t tokens_min_, tokens_max_;  // of the prompt
  const int64_t output_min_, output_max_;  // of max_tokens
  const int64_t priority_min_;
  const std::vector<std::string> models_, tenants_, languages_;
  const std::optional<bool> images_, tools_;
  const std::string header_;  // "name:value"
  std::vector<std::string> targets_;
  Action action_ = kUse;
};

}  // namespace

std::unique_ptr<Policy> make_rule(PolicyOptions& options) { return std::make_unique<Rule>(options); }

}  // namespace spillway::gateway
