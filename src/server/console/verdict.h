// Verdict: why is it slow? Names the resource that binds now, with the figures that say so: where recent requests spent
// their time, how near a step is to its floor on this machine (bytes that it must read at the measured bandwidth,
// operations that it must make at the best measured rate), and what is full. A pure function of Signals.
#pragma once

#include <string>

namespace spillway::server {

// Where the time of recent requests went; shares of their sum.
struct TimeShares {
  double queue = 0;     // accepted, not begun
  double prefill = 0;   // begun, no token yet
  double decode = 0;    // first token to the last
  double upstream = 0;  // at another server
  double other = 0;     // parsing, templates, writing to the client
  int requests = 0;     // that were looked at
};

struct Signals {
  bool loading = false, draining = false, stalled = false, device_failed = false;
  bool has_engine = false;
  int running = 0, waiting = 0;
  bool blocked = false;   // something waits that found no slot or no pages
  double slots_used = 0;  // 0..1 of sequences_max
  double pages_used = 0;  // 0..1, the reclaimable ones not counted
  double predicted_wait_s = 0;
  double step_s = 0;  // of a recent step, and its rows
  double rows = 0;
  double prefill_share = 0;  // of the rows
  double step_bytes = 0;     // weights and cache that a step must read
  double step_flops = 0;
  double bandwidth = 0;      // bytes a second, measured; 0: not measured
  double flops_peak = 0;     // the best that steps have reached
  double cpu_of_others = 0;  // 0..1 of the machine's processors, used by other programs
  double error_share = 0;    // of requests, recently
  int upstreams = 0, upstreams_down = 0;
  TimeShares time;
};

struct Verdict {
  // "loading", "draining", "device_failed", "stalled", "upstreams", "idle", "slots", "kv_pages", "host_cpu",
  // "memory_bandwidth", "compute", "overhead", "upstream_time", "clients"
  std::string resource;
  enum class Severity { kGood, kBusy, kBad } severity = Severity::kGood;
  double memory_floor_s = 0;  // of a step
  double compute_floor_s = 0;
  double efficiency = 0;  // the larger floor over the measured step; 0: not known
};

Verdict judge(const Signals& signals);

}  // namespace spillway::server
