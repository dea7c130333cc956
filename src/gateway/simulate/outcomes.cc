#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "gateway/simulate/simulator.h"

namespace spillway::gateway {
namespace {

namespace json = boost::json;

json::object object_of(const Quantiles& q) {
  return {{"mean", q.mean}, {"p50", q.p50}, {"p95", q.p95}, {"p99", q.p99}};
}

json::object object_of(const ServerOutcome& server) {
  return {{"name", server.name},
          {"answered", server.answered},
          {"prompt_tokens", server.prompt_tokens},
          {"cached_tokens", server.cached_tokens},
          {"output_tokens", server.output_tokens},
          {"usd_tokens", server.usd_tokens},
          {"usd_hours", server.usd_hours}};
}

}  // namespace

std::string render_outcomes(const std::vector<SimulationOutcome>& outcomes) {
  std::string text =
      fmt::format("{:<24} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>6} {:>8} {:>9} {:>6}\n", "policy", "answered",
                  "refused", "mean s", "p50", "p95", "p99", "TTFT s", "p99", "cached", "USD/1k", "cost");
  const auto per_thousand = [](const SimulationOutcome& o) {
    return o.answered > 0 ? 1000 * o.usd / static_cast<double>(o.answered) : 0;
  };
  for (const SimulationOutcome& o : outcomes) {
    const double base = per_thousand(outcomes.front());
    text += fmt::format(
        "{:<24} {:>8} {:>8} {:>8.3f} {:>8.3f} {:>8.3f} {:>8.3f} {:>8.3f} {:>6.3f} {:>7.1f}% {:>9.4f} {:>+5.0f}%\n",
        o.policy, o.answered, o.refused + o.timed_out, o.latency_s.mean, o.latency_s.p50, o.latency_s.p95,
        o.latency_s.p99, o.first_token_s.mean, o.first_token_s.p99, 100 * o.cache_hit, per_thousand(o),
        base > 0 ? 100 * (per_thousand(o) / base - 1) : 0);
  }
  for (const SimulationOutcome& o : outcomes) {
    text += fmt::format("\n{}:", o.policy);
    for (const ServerOutcome& server : o.servers)
      text += fmt::format(
          " {} {:.1f}%", server.name,
          o.answered > 0 ? 100.0 * static_cast<double>(server.answered) / static_cast<double>(o.answered) : 0.0);
  }
  return text + "\n";
}

std::string outcomes_json(const std::vector<SimulationOutcome>& outcomes) {
  json::array array;
  for (const SimulationOutcome& o : outcomes) {
    json::array servers;
    for (const ServerOutcome& server : o.servers) servers.push_back(object_of(server));
    array.push_back(json::object{{"policy", o.policy},
                                 {"requests", o.requests},
                                 {"answered", o.answered},
                                 {"refused", o.refused},
                                 {"timed_out", o.timed_out},
                                 {"retried", o.retried},
                                 {"latency_s", object_of(o.latency_s)},
                                 {"first_token_s", object_of(o.first_token_s)},
                                 {"usd", o.usd},
                                 {"cache_hit", o.cache_hit},
                                 {"duration_s", o.duration_s},
                                 {"servers", std::move(servers)}});
  }
  return json::serialize(array);
}

}  // namespace spillway::gateway
