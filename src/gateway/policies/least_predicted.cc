// The upstream predicted to give the last token soonest:
//   round trip + wait + (prompt - cached) / prefill rate + output / decode rate,   all over its share while warming up.
// An upstream that nothing was measured of yet is taken to be as fast as the fastest of its tier, so that it gets
// tried. Against herding on reports that several gateways read at once: jitter, and `choices`: with choices=2 the
// better of two drawn at random (weighing nothing else) goes first, which loses little and never sends everyone to the
// same place.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "gateway/policies/load.h"
#include "gateway/policies/random.h"
#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr uint64_t kJitterStream = 0x11, kChoiceStream = 0x12;

class LeastPredicted final : public Policy {
 public:
  explicit LeastPredicted(PolicyOptions& options)
      : report_age_max_s_(options.number("report_age_max", kReportAgeMaxS, 0.001, 3600)),
        jitter_(options.number("jitter", 0.02, 0, 1)),
        choices_(static_cast<size_t>(options.integer("choices", 0, 0, 1000))),
        first_token_(options.choice("until", "last", "first|last") == "first") {}
  std::string_view name() const override { return "least_predicted"; }

  void apply(Deliberation& deliberation) const override {
    const double unknown_wait = worst_known_wait(deliberation);
    const FastestByTier fastest = fastest_by_tier(deliberation);
    for (Candidate& candidate : deliberation.decision.order) {
      const UpstreamState& upstream = deliberation.state(candidate);
      const ServiceRate& best = fastest[static_cast<size_t>(upstream.info->tier)];
      ServiceRate rate = upstream.rate;
      if (rate.prefill_tokens_per_s <= 0) rate.prefill_tokens_per_s = best.prefill_tokens_per_s;
      if (rate.decode_tokens_per_s <= 0) rate.decode_tokens_per_s = best.decode_tokens_per_s;
      predict(deliberation, candidate, rate_or_assumed(rate), unknown_wait);
    }
    if (choices_ > 0) draw(deliberation);
  }

 private:
  using FastestByTier = std::array<ServiceRate, 3>;
  static FastestByTier fastest_by_tier(const Deliberation& deliberation) {
    FastestByTier fastest{};
    for (const Candidate& candidate : deliberation.decision.order) {
      const UpstreamState& upstream = deliberation.state(candidate);
      ServiceRate& best = fastest[static_cast<size_t>(upstream.info->tier)];
      best.prefill_tokens_per_s = std::max(best.prefill_tokens_per_s, upstream.rate.prefill_tokens_per_s);
      best.decode_tokens_per_s = std::max(best.decode_tokens_per_s, upstream.rate.decode_tokens_per_s);
    }
    return fastest;
  }

  // What somebody who does not report is taken to be: as busy as the busiest who does.
  double worst_known_wait(const Deliberation& deliberation) const {
    double worst = 0;
    for (const Candidate& candidate : deliberation.decision.order) {
      const UpstreamState& upstream = deliberation.state(candidate);
      if (knowledge(upstream, deliberation.now, report_age_max_s_) != Knowledge::kReported) continue;
      worst = std::max(worst, wait_s(upstream, deliberation.request, deliberation.now, report_age_max_s_));
    }
    return worst;
  }

  void predict(Deliberation& deliberation, Candidate& candidate, const ServiceRate& rate, double unknown_wait) const {
    const RequestFeatures& request = deliberation.request;
    const UpstreamState& upstream = deliberation.state(candidate);
    const bool unknown = knowledge(upstream, deliberation.now, report_age_max_s_) == Knowledge::kUnknown;
    double wait = wait_s(upstream, request, deliberation.now, report_age_max_s_);
    if (unknown) wait = std::max(wait, unknown_wait);
    const double fresh = std::max(0.0, static_cast<double>(request.prompt_tokens) - candidate.cached_tokens);
    const double prefill = fresh / rate.prefill_tokens_per_s;
    const double decode = static_cast<double>(output_tokens_expected(request)) / rate.decode_tokens_per_s;
    candidate.predicted_first_s = upstream.info->round_trip_s + wait + prefill;
    candidate.predicted_s = candidate.predicted_first_s + decode;
    const double jitter = 1 + jitter_ * (2 * uniform(candidate.tie, kJitterStream) - 1);
    const double until = first_token_ ? candidate.predicted_first_s : candidate.predicted_s;
    candidate.score = until * jitter / std::max(0.01, upstream.share);
    // Late is better than never: it stays a candidate, after those who are in time.
    const bool late = request.deadline && deliberation.now + from_seconds(candidate.predicted_s) > *request.deadline;
    if (late) ++candidate.band;
    if (!deliberation.explain) return;
    deliberation.note(candidate, name(),
                      fmt::format("{:.3f} s = round trip {:.3f} + wait {:.3f}{} + prefill {:.3f} + decode {:.3f}{}",
                                  candidate.predicted_s, upstream.info->round_trip_s, wait,
                                  unknown ? " (no fresh report: as the busiest)" : "", prefill, decode,
                                  late ? "; past the deadline" : ""));
  }

  // Splits each band in two: the drawn, then the others.
  void draw(Deliberation& deliberation) const {
    std::vector<Candidate*> drawn;
    for (Candidate& candidate : deliberation.decision.order) drawn.push_back(&candidate);
    std::sort(drawn.begin(), drawn.end(), [](const Candidate* a, const Candidate* b) {
      return std::pair(a->band, uniform(a->tie, kChoiceStream)) < std::pair(b->band, uniform(b->tie, kChoiceStream));
    });
    size_t in_band = 0;
    int band = 0;
    for (size_t i = 0; i < drawn.size(); ++i) {
      in_band = i > 0 && drawn[i]->band == band ? in_band + 1 : 0;
      band = drawn[i]->band;
      drawn[i]->band = 2 * band + (in_band >= choices_ ? 1 : 0);
    }
  }

  const double report_age_max_s_;
  const double jitter_;     // of the prediction, either way
  const size_t choices_;    // 0: all
  const bool first_token_;  // predict until the first token instead of the last
};

}  // namespace

std::unique_ptr<Policy> make_least_predicted(PolicyOptions& options) {
  return std::make_unique<LeastPredicted>(options);
}

}  // namespace spillway::gateway
