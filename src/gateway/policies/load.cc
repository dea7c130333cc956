#include "gateway/policies/load.h"

#include <algorithm>

namespace spillway::gateway {
namespace {

struct Work {
  double requests = 0;       // running and waiting
  double prompt_tokens = 0;  // of ours, not in the report
  double wait_s = 0;         // as reported
};

Work work_of(const UpstreamState& upstream, Knowledge known) {
  if (known != Knowledge::kReported)
    return {static_cast<double>(upstream.in_flight), static_cast<double>(upstream.in_flight_prompt_tokens), 0};
  const LoadReport& report = *upstream.report;
  const int since = std::max(0, upstream.in_flight - upstream.in_flight_at_report);
  const int64_t tokens_since =
      std::max<int64_t>(0, upstream.in_flight_prompt_tokens - upstream.prompt_tokens_at_report);
  return {static_cast<double>(report.running + report.waiting + since), static_cast<double>(tokens_since),
          report.predicted_wait_s};
}

}  // namespace

Knowledge knowledge(const UpstreamState& upstream, TimePoint now, double report_age_max_s) {
  // A report from the future is a clock's mistake, hence not fresh either.
  if (upstream.report) {
    const double age = seconds(now - upstream.report->at);
    if (age >= 0 && age <= report_age_max_s) return Knowledge::kReported;
    return Knowledge::kUnknown;
  }
  return upstream.info->reports_load ? Knowledge::kUnknown : Knowledge::kOwn;
}

double pressure(const UpstreamState& upstream, TimePoint now, double report_age_max_s) {
  const Knowledge known = knowledge(upstream, now, report_age_max_s);
  const double used = work_of(upstream, known).requests / std::max(1, upstream.info->concurrency_max);
  const double warm = used / std::max(0.01, upstream.share);
  return known == Knowledge::kUnknown ? std::max(1.0, warm) : warm;
}

ServiceRate rate_or_assumed(ServiceRate rate) {
  if (rate.prefill_tokens_per_s <= 0) rate.prefill_tokens_per_s = kRateAssumed.prefill_tokens_per_s;
  if (rate.decode_tokens_per_s <= 0) rate.decode_tokens_per_s = kRateAssumed.decode_tokens_per_s;
  return rate;
}

double wait_s(const UpstreamState& upstream, const RequestFeatures& request, TimePoint now, double report_age_max_s) {
  const Knowledge known = knowledge(upstream, now, report_age_max_s);
  const Work work = work_of(upstream, known);
  const ServiceRate rate = rate_or_assumed(upstream.rate);
  const int slots = std::max(1, upstream.info->concurrency_max);
  // Past its slots each further request waits for one to end; they end one after another, a whole service time over all
  // slots. A report's own prediction counts those that wait already.
  const double service = static_cast<double>(output_tokens_expected(request)) / rate.decode_tokens_per_s +
                         static_cast<double>(request.prompt_tokens) / rate.prefill_tokens_per_s;
  const double over = std::max(0.0, work.requests + 1 - slots);
  const double for_a_slot = over * service / slots;
  const double for_prefill = work.wait_s + work.prompt_tokens / rate.prefill_tokens_per_s;
  return std::max(for_a_slot, for_prefill);
}

}  // namespace spillway::gateway
