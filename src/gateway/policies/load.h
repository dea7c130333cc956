// How loaded an upstream is, from its report where that is fresh and from our own requests there otherwise. A report
// older than the bound is no news: the upstream counts as unknown, which is never taken for idle.
#pragma once

#include <span>

#include "gateway/policy.h"

namespace spillway::gateway {

inline constexpr double kReportAgeMaxS = 1.0;

enum class Knowledge {
  kReported,  // a fresh report, corrected by what we sent since
  kOwn,       // it never reports (a provider): our own requests are all we know
  kUnknown,   // it should report and does not
};
Knowledge knowledge(const UpstreamState& upstream, TimePoint now, double report_age_max_s);

// Requests there as a share of what it runs at once; 1 and more: new ones wait. Unknown counts as at least 1.
double pressure(const UpstreamState& upstream, TimePoint now, double report_age_max_s);

// Seconds until a new request would begin there. Of an unknown one: what our own requests there explain.
double wait_s(const UpstreamState& upstream, const RequestFeatures& request, TimePoint now, double report_age_max_s);

// The speeds to predict with where nothing was measured yet; rough on purpose.
inline constexpr ServiceRate kRateAssumed{2000, 25};
ServiceRate rate_or_assumed(ServiceRate rate);

}  // namespace spillway::gateway
