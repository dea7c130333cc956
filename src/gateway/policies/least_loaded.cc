// The upstream with the least of its concurrency in use. Needs no measured rates; a plain baseline.
#include <fmt/format.h>

#include "gateway/policies/load.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

class LeastLoaded final : public Policy {
 public:
  explicit LeastLoaded(PolicyOptions& options)
      : report_age_max_s_(options.number("report_age_max", kReportAgeMaxS, 0.001, 3600)) {}
  std::string_view name() const override { return "least_loaded"; }

  void apply(Deliberation& deliberation) const override {
    for (Candidate& candidate : deliberation.decision.order) {
      candidate.score = pressure(deliberation.state(candidate), deliberation.now, report_age_max_s_);
      if (deliberation.explain)
        deliberation.note(candidate, name(), fmt::format("{:.0f}% in use", 100 * candidate.score));
    }
  }

 private:
  const double report_age_max_s_;
};

}  // namespace

std::unique_ptr<Policy> make_least_loaded(PolicyOptions& options) { return std::make_unique<LeastLoaded>(options); }

}  // namespace spillway::gateway
