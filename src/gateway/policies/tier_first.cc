// edge_first: requests short enough for the edge go there while an edge node is under pressure_max; longer ones, and
// all while the edge is full, are open to everyone else first. centre_first: the centre while it is under pressure_max,
// then everybody, the edge only for requests short enough for it. Who comes first within a band is for the policies
// after them (least_predicted, prefix_affinity) to say; the others remain as fallbacks.
#include <fmt/format.h>

#include "gateway/policies/load.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr int64_t kLarge = 1'000'000'000;

class TierFirst final : public Policy {
 public:
  TierFirst(PolicyOptions& options, Tier first)
      : first_(first),
        text_tokens_max_(options.integer("text_tokens_max", first == Tier::kEdge ? 2000 : kLarge, 0, kLarge)),
        output_tokens_max_(options.integer("output_tokens_max", kLarge, 0, kLarge)),
        pressure_max_(options.number("pressure_max", 0.8, 0, 1000)),
        report_age_max_s_(options.number("report_age_max", kReportAgeMaxS, 0.001, 3600)) {}

  std::string_view name() const override { return first_ == Tier::kEdge ? "edge_first" : "centre_first"; }

  void apply(Deliberation& deliberation) const override {
    const RequestFeatures& request = deliberation.request;
    const bool fits =
        request.prompt_tokens <= text_tokens_max_ && output_tokens_expected(request) <= output_tokens_max_;
    for (Candidate& candidate : deliberation.decision.order) {
      const UpstreamState& upstream = deliberation.state(candidate);
      const Tier tier = upstream.info->tier;
      if (tier == Tier::kEdge && !fits) {
        candidate.band += 2;
        deliberation.note(candidate, name(), "the request is too long for the edge");
        continue;
      }
      const double load = pressure(upstream, deliberation.now, report_age_max_s_);
      const bool open = tier == first_ && load < pressure_max_;
      if (!open) ++candidate.band;
      if (deliberation.explain)
        deliberation.note(candidate, name(),
                          fmt::format("{}, {:.0f}% in use: {}", tier_name(tier), 100 * load,
                                      open             ? "first"
                                      : tier == first_ ? "spills"
                                                       : "when those spill"));
    }
  }

 private:
  const Tier first_;
  const int64_t text_tokens_max_;    // of the prompt
  const int64_t output_tokens_max_;  // as expected
  const double pressure_max_;
  const double report_age_max_s_;
};

}  // namespace

std::unique_ptr<Policy> make_edge_first(PolicyOptions& options) {
  return std::make_unique<TierFirst>(options, Tier::kEdge);
}

std::unique_ptr<Policy> make_centre_first(PolicyOptions& options) {
  return std::make_unique<TierFirst>(options, Tier::kCentre);
}

}  // namespace spillway::gateway
