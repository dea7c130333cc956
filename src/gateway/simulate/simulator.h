// Replays a trace over a described fleet with the gateway's own policies, and counts what came of it. The simulated
// gateway knows what a real one would: its own requests, load reports as old as they are, and speeds measured from
// answers; never the trace's future. Deterministic: same inputs, same numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gateway/simulate/fleet.h"
#include "gateway/simulate/trace.h"

namespace spillway::gateway {

struct Quantiles {
  double mean = 0, p50 = 0, p95 = 0, p99 = 0;
};
Quantiles quantiles(std::vector<double> values);

struct ServerOutcome {
  std::string name;
  int64_t answered = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, output_tokens = 0;
  double usd_tokens = 0;
  double usd_hours = 0;
};

struct SimulationOutcome {
  std::string policy;
  int64_t requests = 0;
  int64_t answered = 0;
  int64_t refused = 0;    // by everyone asked, or nobody to ask
  int64_t timed_out = 0;  // still waiting at the timeout
  int64_t retried = 0;    // attempts after the first
  Quantiles latency_s;    // of the answered, to the last token
  Quantiles first_token_s;
  double usd = 0;
  double cache_hit = 0;   // share of all prompt tokens
  double duration_s = 0;  // from the first arrival to the last answer
  std::vector<ServerOutcome> servers;
};

SimulationOutcome simulate(const std::vector<TraceRequest>& trace, const FleetDescription& fleet,
                           const PolicyUnderTest& policy, uint64_t seed = 1);

// A table of the outcomes, the first being what the others are compared with.
std::string render_outcomes(const std::vector<SimulationOutcome>& outcomes);
std::string outcomes_json(const std::vector<SimulationOutcome>& outcomes);

}  // namespace spillway::gateway
