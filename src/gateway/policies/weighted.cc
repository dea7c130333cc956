// Shares requests over upstreams in proportion to their weights (times the share of one that is warming up). Each
// candidate draws an exponential time of rate weight and the earliest goes first: the order is then a weighted draw
// without replacement (Efraimidis and Spirakis), so that second choices are shared by weight too.
#include <cmath>

#include "gateway/policies/random.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

class Weighted final : public Policy {
 public:
  explicit Weighted(PolicyOptions& options) : sticky_(options.boolean("sticky", false)) {}
  std::string_view name() const override { return "weighted"; }

  void apply(Deliberation& deliberation) const override {
    deliberation.refuse_if([&](const Candidate& candidate) -> std::optional<std::string> {
      if (deliberation.state(candidate).info->weight > 0) return std::nullopt;
      return "weight 0";
    });
    const RequestFeatures& request = deliberation.request;
    const uint64_t seed = sticky_ && !request.session.empty() ? hash_text(request.session) : request.seed;
    for (Candidate& candidate : deliberation.decision.order) {
      const UpstreamState& upstream = deliberation.state(candidate);
      const double weight = upstream.info->weight * upstream.share;
      // By name, so that adding an upstream moves only the requests it gets.
      candidate.score = -std::log(uniform(seed, hash_text(upstream.info->name))) / weight;
      if (deliberation.explain) deliberation.note(candidate, name(), "weight " + std::to_string(weight));
    }
  }

 private:
  const bool sticky_;  // by session instead of by request
};

}  // namespace

std::unique_ptr<Policy> make_weighted(PolicyOptions& options) { return std::make_unique<Weighted>(options); }

}  // namespace spillway::gateway
