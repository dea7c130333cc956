// A fixed part of the sessions (by hash, so that each stays on its side) tries one upstream first; all others stay away
// from it unless nobody else is left.
#include "gateway/policies/random.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr int kAway = 1000;  // bands

class Canary final : public Policy {
 public:
  explicit Canary(PolicyOptions& options)
      : upstream_(options.text("upstream")), fraction_(options.number("fraction", 0.05, 0, 1)) {
    if (upstream_.empty()) options.fail("upstream", "the name of an upstream");
  }
  std::string_view name() const override { return "canary"; }

  void apply(Deliberation& deliberation) const override {
    const RequestFeatures& request = deliberation.request;
    const uint64_t who = request.session.empty() ? request.seed : hash_text(request.session);
    const bool chosen = uniform(who, hash_text(upstream_)) < fraction_;
    for (Candidate& candidate : deliberation.decision.order) {
      const bool canary = deliberation.state(candidate).info->name == upstream_;
      if (canary == chosen) continue;
      candidate.band += kAway;
      deliberation.note(candidate, name(), canary ? "kept for the canary's sessions" : "after the canary");
    }
  }

 private:
  const std::string upstream_;
  const double fraction_;
};

}  // namespace

std::unique_ptr<Policy> make_canary(PolicyOptions& options) { return std::make_unique<Canary>(options); }

}  // namespace spillway::gateway
