// Nobody who would cost more than the ceiling: usd_max dollars for the request (prompt, cached part and expected output
// at the upstream's prices), or factor_max times the cheapest candidate. When nobody is below, `otherwise` says whether
// the request is refused or goes to the cheapest.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

class CostCeiling final : public Policy {
 public:
  explicit CostCeiling(PolicyOptions& options)
      : usd_max_(options.number("usd_max", kNone, 0, 1e9)),
        factor_max_(options.number("factor_max", kNone, 1, 1e9)),
        cheapest_stays_(options.choice("otherwise", "refuse", "refuse|cheapest") == "cheapest") {
    if (usd_max_ == kNone && factor_max_ == kNone) options.fail("usd_max", "usd_max or factor_max");
  }
  std::string_view name() const override { return "cost_ceiling"; }

  void apply(Deliberation& deliberation) const override {
    const auto& order = deliberation.decision.order;
    if (order.empty()) return;
    double cheapest = kNone;
    for (const Candidate& candidate : order) cheapest = std::min(cheapest, candidate.cost);
    // Of upstreams that cost nothing, nothing is a multiple.
    const double relative = factor_max_ == kNone || cheapest <= 0 ? kNone : cheapest * factor_max_;
    const double ceiling = std::min(usd_max_, relative);
    const double floor = cheapest_stays_ ? cheapest : -1;
    deliberation.refuse_if([&](const Candidate& candidate) -> std::optional<std::string> {
      if (candidate.cost <= ceiling || candidate.cost <= floor) return std::nullopt;
      return fmt::format("cost_ceiling: ${:.6f}, the ceiling is ${:.6f}", candidate.cost, ceiling);
    });
  }

 private:
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  const double usd_max_;
  const double factor_max_;
  const bool cheapest_stays_;
};

}  // namespace

std::unique_ptr<Policy> make_cost_ceiling(PolicyOptions& options) { return std::make_unique<CostCeiling>(options); }

}  // namespace spillway::gateway
