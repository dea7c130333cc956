#include "telemetry/objectives.h"

#include <algorithm>
#include <cmath>

#include "metrics/metrics.h"
#include "metrics/registry.h"

namespace spillway::telemetry {
namespace {

metrics::Counter requests_total(
    "spillway_slo_requests_total",
    "Generations by whether they kept the objective: good, or bad (a 5xx, a broken stream, too "
    "slow). What the client did wrong counts for neither.",
    {"result"});
metrics::Gauge objective("spillway_slo_objective_ratio", "Share of generations that must be good.");
metrics::Gauge burn("spillway_slo_error_budget_burn",
                    "Bad share over the share that the objective allows, by window; 1 uses the budget up exactly.",
                    {"window"});
metrics::Gauge quantiles("spillway_latency_quantile_seconds",
                         "Quantiles of each latency histogram over the last five minutes, all its series together.",
                         {"metric", "percentile"});

struct BurnWindow {
  const char* name;
  Duration length;
};
constexpr BurnWindow kBurnWindows[] = {{"5m", std::chrono::minutes(5)},
                                       {"30m", std::chrono::minutes(30)},
                                       {"1h", std::chrono::hours(1)},
                                       {"6h", std::chrono::hours(6)},
                                       {"24h", std::chrono::hours(24)}};
constexpr Duration kQuantileWindow = std::chrono::minutes(5), kReadingInterval = std::chrono::seconds(10);
constexpr std::pair<double, const char*> kQuantiles[] = {{0.5, "50"}, {0.95, "95"}, {0.99, "99"}, {0.999, "99.9"}};

// How far apart readings of this age are kept: a hundredth of it.
Duration spacing(Duration age) { return age / 100; }

}  // namespace

Objectives::Objectives(ObjectiveOptions options) : options_(options) { objective->set(options.availability); }

void Objectives::record(const RequestRecord& request) {
  if (request.operation.empty()) return;
  const bool broken = request.status / 100 == 2 && request.outcome != "ok" && request.outcome != "cancelled";
  const double waited = request.first_token_s.value_or(request.duration_s);
  const bool slow = options_.latency_s > 0 && request.status / 100 == 2 && waited > options_.latency_s;
  const bool bad = request.status >= 500 || broken || slow;
  if (!bad && request.status / 100 != 2) return;
  (bad ? bad_ : good_).fetch_add(1, std::memory_order_relaxed);
  requests_total.with({bad ? "bad" : "good"}).add();
}

void Objectives::refresh(TimePoint now) {
  refresh_burn(now);
  refresh_quantiles(now);
}

void Objectives::refresh_burn(TimePoint now) {
  history_.push_back({now, good_.load(), bad_.load()});
  while (history_.size() > 2 && now - history_[1].at >= kBurnWindows[4].length) history_.pop_front();
  for (size_t i = 1; i + 1 < history_.size();) {
    const bool dense = history_[i + 1].at - history_[i - 1].at < spacing(now - history_[i].at);
    if (dense) {
      history_.erase(history_.begin() + ptrdiff_t(i));
    } else {
      ++i;
    }
  }
  const double allowed = std::max(1e-9, 1 - options_.availability);
  for (const BurnWindow& window : kBurnWindows) {
    const auto first = std::ranges::find_if(history_, [&](const Counts& c) { return now - c.at <= window.length; });
    const Counts& then = first == history_.begin() ? *first : *(first - 1);
    const Counts& last = history_.back();
    const double good = double(last.good - then.good), bad = double(last.bad - then.bad);
    burn.with({window.name}).set(good + bad > 0 ? bad / (good + bad) / allowed : 0);
  }
}

void Objectives::refresh_quantiles(TimePoint now) {
  for (const metrics::Exported* metric : metrics::Registry::instance().sorted()) {
    const metrics::Description& description = metric->description();
    if (description.kind != metrics::Kind::kHistogram || description.unit != "seconds") continue;
    metrics::NativeReading all;
    metric->read([&](const metrics::Reading& series) { all.add(series.distribution->native()); });
    std::deque<Reading>& history = readings_[description.name];
    while (history.size() > 1 && now - history[1].at >= kQuantileWindow) history.pop_front();
    // Before the first reading nothing had been observed, as far as is known here.
    const metrics::NativeReading recent = history.empty() ? all : all.since(history.front().values);
    if (history.empty() || now - history.back().at >= kReadingInterval) history.push_back({now, all});
    if (all.count == 0) continue;
    for (const auto& [q, name] : kQuantiles) quantiles.with({description.name, name}).set(recent.quantile(q));
  }
}

}  // namespace spillway::telemetry
