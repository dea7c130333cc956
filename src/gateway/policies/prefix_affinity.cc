// Upstreams that have the beginning of the prompt in their cache need not compute it again: what they are believed to
// have is weighed by how far such beliefs came true there, and its prefill time is taken off the score. Comes before
// least_predicted, which then counts cached tokens in its prediction, or stands alone.
// Against hot spots: an upstream with more than `imbalance` times the mean pressure of the candidates, plus a slack of
// `slack` requests, gets no discount, and so the next request goes elsewhere and builds a second copy there. Prompts
// that nobody has cached get no discount anywhere: they spread as the other policies say, never to the busiest.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "gateway/policies/load.h"
#include "gateway/policies/prefix_index.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

class PrefixAffinity final : public Policy {
 public:
  explicit PrefixAffinity(PolicyOptions& options)
      : imbalance_(options.number("imbalance", 1.25, 1, 100)),
        slack_(options.number("slack", 2, 0, 10000)),
        tokens_min_(options.number("tokens_min", 32, 0, 1e9)),
        report_age_max_s_(options.number("report_age_max", kReportAgeMaxS, 0.001, 3600)) {}
  std::string_view name() const override { return "prefix_affinity"; }

  void apply(Deliberation& deliberation) const override {
    const RequestFeatures& request = deliberation.request;
    auto& order = deliberation.decision.order;
    if (deliberation.prefixes == nullptr || request.prefix_blocks.empty() || order.empty()) return;
    std::vector<uint32_t> matched(deliberation.upstreams.size());
    deliberation.prefixes->match(request.prefix_blocks, deliberation.now, matched);
    double mean = 0;
    for (const Candidate& candidate : order) mean += loaded(deliberation, candidate);
    mean /= static_cast<double>(order.size());
    for (Candidate& candidate : order) {
      const double believed =
          std::min(matched[candidate.upstream] * request.tokens_per_block, static_cast<double>(request.prompt_tokens));
      if (believed < tokens_min_ || believed == 0) continue;
      discount(deliberation, candidate, believed, mean);
    }
  }

 private:
  double loaded(const Deliberation& deliberation, const Candidate& candidate) const {
    return pressure(deliberation.state(candidate), deliberation.now, report_age_max_s_);
  }

  void discount(Deliberation& deliberation, Candidate& candidate, double believed, double mean) const {
    const UpstreamState& upstream = deliberation.state(candidate);
    const double slack = slack_ / std::max(1, upstream.info->concurrency_max);
    const double load = loaded(deliberation, candidate);
    if (load > mean * imbalance_ + slack) {
      if (deliberation.explain)
        deliberation.note(candidate, name(),
                          fmt::format("has {:.0f} tokens, but {:.0f}% in use where the mean is {:.0f}%", believed,
                                      100 * load, 100 * mean));
      return;
    }
    candidate.cached_tokens = believed * deliberation.prefixes->trust(candidate.upstream);
    const double saved = candidate.cached_tokens / rate_or_assumed(upstream.rate).prefill_tokens_per_s;
    candidate.score -= saved;
    candidate.cost = cost_of(deliberation.request, upstream.info->price, candidate.cached_tokens);
    if (deliberation.explain)
      deliberation.note(candidate, name(),
                        fmt::format("{:.0f} of {} tokens cached, saves {:.3f} s", candidate.cached_tokens,
                                    deliberation.request.prompt_tokens, saved));
  }

  const double imbalance_;
  const double slack_;       // requests
  const double tokens_min_;  // less is not worth a preference
  const double report_age_max_s_;
};

}  // namespace

std::unique_ptr<Policy> make_prefix_affinity(PolicyOptions& options) {
  return std::make_unique<PrefixAffinity>(options);
}

}  // namespace spillway::gateway
