#include "server/console/verdict.h"

#include <algorithm>

namespace spillway::server {
namespace {

using Severity = Verdict::Severity;

constexpr double kFull = 0.97;
constexpr double kWait_s = 1;          // a wait that a person notices
constexpr double kCpuOfOthers = 0.25;  // of the processors: more takes it from a step
constexpr double kEfficiencyLow =
    0.25;  // of the floor: below it neither memory nor arithmetic is what a step waits for

// What a step is bound by, when it is the engine that sets the pace.
const char* bound_of_step(const Signals& s, const Verdict& v) {
  if (s.cpu_of_others > kCpuOfOthers) return "host_cpu";
  if (v.efficiency > 0 && v.efficiency < kEfficiencyLow && s.prefill_share < 0.5) return "overhead";
  if (v.compute_floor_s > v.memory_floor_s || s.prefill_share > 0.5) return "compute";
  return "memory_bandwidth";
}

const char* full_resource(const Signals& s) {
  if (s.pages_used >= kFull) return "kv_pages";
  if (s.slots_used >= 1) return "slots";
  return nullptr;
}

}  // namespace

Verdict judge(const Signals& s) {
  Verdict v;
  if (s.bandwidth > 0) v.memory_floor_s = s.step_bytes / s.bandwidth;
  if (s.flops_peak > 0) v.compute_floor_s = s.step_flops / s.flops_peak;
  if (s.step_s > 0) v.efficiency = std::min(1.0, std::max(v.memory_floor_s, v.compute_floor_s) / s.step_s);
  const auto say = [&](const char* resource, Severity severity) {
    v.resource = resource;
    v.severity = severity;
    return v;
  };
  if (s.loading) return say("loading", Severity::kBusy);
  if (s.draining) return say("draining", Severity::kBusy);
  if (s.device_failed) return say("device_failed", Severity::kBad);
  if (s.stalled) return say("stalled", Severity::kBad);
  if (s.upstreams > 0 && s.upstreams_down == s.upstreams) return say("upstreams", Severity::kBad);
  const bool waits = s.waiting > 0 && (s.predicted_wait_s > kWait_s || s.time.queue > 0.3);
  if (waits && s.blocked) {
    if (const char* full = full_resource(s)) return say(full, Severity::kBad);
  }
  if (waits) return say(bound_of_step(s, v), Severity::kBad);
  if (s.time.upstream > 0.5 && s.time.requests > 0) {
    return say("upstream_time", s.upstreams_down > 0 || s.error_share > 0.01 ? Severity::kBad : Severity::kBusy);
  }
  if (!s.has_engine || (s.running == 0 && s.waiting == 0)) return say("idle", Severity::kGood);
  if (s.time.other > 0.5 && s.time.requests > 0) return say("clients", Severity::kBusy);
  return say(bound_of_step(s, v), Severity::kBusy);
}

}  // namespace spillway::server
