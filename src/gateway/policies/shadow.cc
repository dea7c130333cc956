// A part of the requests is copied to one upstream, whose answers are measured and thrown away. That upstream answers
// no request itself.
#include "gateway/policies/random.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

class Shadow final : public Policy {
 public:
  explicit Shadow(PolicyOptions& options)
      : upstream_(options.text("upstream")), fraction_(options.number("fraction", 0.1, 0, 1)) {
    if (upstream_.empty()) options.fail("upstream", "the name of an upstream");
  }
  std::string_view name() const override { return "shadow"; }

  void apply(Deliberation& deliberation) const override {
    const bool copied = uniform(deliberation.request.seed, hash_text(upstream_, 1)) < fraction_;
    deliberation.refuse_if([&](const Candidate& candidate) -> std::optional<std::string> {
      if (deliberation.state(candidate).info->name != upstream_) return std::nullopt;
      if (copied) deliberation.decision.shadow = candidate.upstream;
      return copied ? "shadow: gets a copy" : "shadow: only gets copies";
    });
  }

 private:
  const std::string upstream_;
  const double fraction_;
};

}  // namespace

std::unique_ptr<Policy> make_shadow(PolicyOptions& options) { return std::make_unique<Shadow>(options); }

}  // namespace spillway::gateway
