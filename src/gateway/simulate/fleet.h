// A fleet as a simulation knows it: servers with their speed by concurrency, bounds, prices and failures, and the
// policies to compare. YAML; every field is explained in docs/routing.md and examples/hybrid/fleet.yaml.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gateway/policy.h"

namespace spillway::gateway {

struct ServerDescription {
  UpstreamInfo info;                // name, tier, price, concurrency_max, round_trip_s, weight, reports_load
  double prefill_tokens_per_s = 0;  // of the whole server
  std::vector<std::pair<int, double>> decode_tokens_per_s;  // (streams, tokens a second of each), rising streams
  double decode_while_prefilling = 0.5;  // share of its decode speed that a server keeps while it computes a prompt
  int queue_max = 256;                   // requests waiting; more are refused
  int64_t cache_tokens = 0;              // of shared prefixes; least recently used go first
  double usd_per_hour = 0;               // paid whether busy or not, by fleets that use the server at all
  double report_interval_s = 0.2;        // between load reports
  std::vector<std::pair<double, double>> down;    // [from, to) seconds: cut off, what runs is lost
  std::vector<std::pair<double, double>> silent;  // no load reports, but it works

  // Of one stream while so many decode; between the points linear, past the last as the total of the last.
  double decode_rate(int streams) const;
};

struct PolicyUnderTest {
  std::string name;
  std::vector<std::string> policies;
};

struct FleetDescription {
  std::vector<ServerDescription> servers;
  std::vector<PolicyUnderTest> policies;
  double timeout_s = 60;  // of a request; what has not begun by then is refused
  int attempts_max = 3;
};

Result<FleetDescription> parse_fleet(std::string_view yaml);
Result<FleetDescription> load_fleet(const std::string& path);

}  // namespace spillway::gateway
