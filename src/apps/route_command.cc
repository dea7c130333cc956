// spillway route simulate|explain
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>

#include "apps/command.h"
#include "gateway/call.h"
#include "gateway/configuration.h"
#include "gateway/policies/explain.h"
#include "gateway/simulate/simulator.h"

namespace spillway::apps {
namespace {

struct SimulateOptions {
  std::string trace;
  std::string fleet;
  std::vector<std::string> policies;  // names of the fleet's; empty: all
  uint64_t seed = 1;
  bool as_json = false;
};

Result<int> simulate(const SimulateOptions& options) {
  SW_ASSIGN(const auto trace, gateway::load_trace(options.trace));
  SW_ASSIGN(const auto fleet, gateway::load_fleet(options.fleet));
  std::vector<gateway::SimulationOutcome> outcomes;
  for (const gateway::PolicyUnderTest& policy : fleet.policies) {
    const bool wanted = options.policies.empty() || std::find(options.policies.begin(), options.policies.end(),
                                                              policy.name) != options.policies.end();
    if (wanted) outcomes.push_back(gateway::simulate(trace, fleet, policy, options.seed));
  }
  if (outcomes.empty()) return invalid("--policy: expected the name of a policy in " + options.fleet);
  const std::string text =
      options.as_json ? gateway::outcomes_json(outcomes) + "\n" : gateway::render_outcomes(outcomes);
  std::fputs(text.c_str(), stdout);
  return 0;
}

struct ExplainOptions {
  std::string request;
  std::string fleet;                 // or
  std::string config;                // of a gateway
  std::string policy;                // empty: the fleet's last
  std::vector<std::string> headers;  // "name: value"
  std::vector<std::string> busy;     // "server=requests"
  std::vector<std::string> down;
};

Result<gateway::RequestFeatures> read_features(const ExplainOptions& options) {
  std::ifstream in(options.request, std::ios::binary);
  if (!in) return not_found(options.request + ": expected a readable request body in JSON");
  net::HttpRequest request;
  request.method = "POST";
  request.id = "explain";
  std::ostringstream body;
  if (in.peek() != std::ifstream::traits_type::eof()) body << in.rdbuf();
  if (in.bad()) return not_found(options.request + ": expected a readable request body in JSON, found none");
  request.body = body.str();
  for (const std::string& header : options.headers) {
    const size_t colon = header.find(':');
    if (colon == std::string::npos) return invalid("--header: expected \"name: value\", found \"" + header + "\"");
    const size_t value = std::min(header.find_first_not_of(' ', colon + 1), header.size());
    request.headers.add(header.substr(0, colon), header.substr(value));
  }
  auto call = gateway::understand(std::move(request), gateway::Endpoint::kChat, {}, std::chrono::steady_clock::now());
  if (!call.ok()) return api::to_error(call.error()).in(options.request);
  return std::move(call->features);
}

Result<gateway::UpstreamState*> state_of(std::vector<gateway::UpstreamState>& states, std::string_view name) {
  for (gateway::UpstreamState& state : states) {
    if (state.info->name == name) return &state;
  }
  return invalid(fmt::format("expected the name of a server of the fleet, found \"{}\"", name));
}

// What the flags say of servers.
Status apply_flags(const ExplainOptions& options, std::vector<gateway::UpstreamState>& states) {
  for (const std::string& busy : options.busy) {
    const size_t equals = busy.find('=');
    SW_ASSIGN(gateway::UpstreamState* const state, state_of(states, std::string_view(busy).substr(0, equals)));
    int requests = -1;
    if (equals != std::string::npos) std::from_chars(busy.data() + equals + 1, busy.data() + busy.size(), requests);
    if (requests < 0) return invalid("--busy: expected SERVER=REQUESTS, found \"" + busy + "\"");
    state->in_flight = requests;
  }
  for (const std::string& name : options.down) {
    SW_ASSIGN(gateway::UpstreamState* const state, state_of(states, name));
    state->health = gateway::Health::kDown;
  }
  return {};
}

// The fleet as it is before any request, with what the flags say of it.
Result<std::vector<gateway::UpstreamState>> states_of(const gateway::FleetDescription& fleet,
                                                      const ExplainOptions& options, TimePoint now) {
  std::vector<gateway::UpstreamState> states;
  for (const gateway::ServerDescription& server : fleet.servers) {
    gateway::UpstreamState& state = states.emplace_back();
    state.info = &server.info;
    state.rate = {server.prefill_tokens_per_s, server.decode_rate(1)};
    state.report.emplace().at = now;
  }
  SW_TRY(apply_flags(options, states));
  for (gateway::UpstreamState& state : states) {
    if (state.in_flight == 0) continue;
    for (const gateway::ServerDescription& server : fleet.servers) {
      if (&server.info == state.info) state.rate.decode_tokens_per_s = server.decode_rate(state.in_flight + 1);
    }
  }
  return states;
}

// The gateway of a configuration as it is when it starts: nobody busy, nothing measured.
Result<int> explain_gateway(const ExplainOptions& options) {
  SW_ASSIGN(const auto config, config::resolve(options.config, config::process_environment()));
  if (!gateway::has_gateway(config)) return invalid(options.config + ": expected gateway.upstreams, found none");
  SW_ASSIGN(const auto configured, gateway::gateway_options(config));
  SW_ASSIGN(const auto chain, gateway::PolicyChain::parse(std::span<const std::string>(configured.policies)));
  SW_ASSIGN(auto features, read_features(options));
  if (const auto alias = configured.aliases.find(features.model); alias != configured.aliases.end())
    features.model = alias->second;
  const TimePoint now = std::chrono::steady_clock::now();
  std::vector<gateway::UpstreamState> states;
  for (const gateway::UpstreamOptions& upstream : configured.upstreams) {
    gateway::UpstreamState& state = states.emplace_back();
    state.info = &upstream.info;
    if (upstream.info.reports_load) state.report.emplace().at = now;
  }
  SW_TRY(apply_flags(options, states));
  const gateway::Decision decision = chain.decide(features, states, now, nullptr, true);
  std::fputs(gateway::explain_decision(features, states, decision).c_str(), stdout);
  return decision.order.empty() ? kFailed : 0;
}

Result<int> explain(const ExplainOptions& options) {
  if (options.config.empty() == options.fleet.empty()) return invalid("expected either --fleet or --config");
  if (!options.config.empty()) return explain_gateway(options);
  SW_ASSIGN(const auto fleet, gateway::load_fleet(options.fleet));
  const auto policy = options.policy.empty() ? std::prev(fleet.policies.end())
                                             : std::find_if(fleet.policies.begin(), fleet.policies.end(),
                                                            [&](const auto& p) { return p.name == options.policy; });
  if (policy == fleet.policies.end()) return invalid("--policy: expected the name of a policy in " + options.fleet);
  SW_ASSIGN(const auto chain, gateway::PolicyChain::parse(std::span<const std::string>(policy->policies)));
  SW_ASSIGN(const auto features, read_features(options));
  const TimePoint now = std::chrono::steady_clock::now();
  SW_ASSIGN(const auto states, states_of(fleet, options, now));
  const gateway::Decision decision = chain.decide(features, states, now, nullptr, true);
  std::fputs(gateway::explain_decision(features, states, decision).c_str(), stdout);
  return decision.order.empty() ? kFailed : 0;
}

void add_explain(CLI::App& command, int& status) {
  CLI::App* explaining = command.add_subcommand("explain", "Which upstream a request would go to, and why");
  const auto options = std::make_shared<ExplainOptions>();
  explaining->add_option("--request", options->request, "File with the body of a chat request")->required();
  explaining->add_option("--fleet", options->fleet, "YAML of servers and policies");
  explaining->add_option("--config", options->config, "Configuration of a gateway, instead of a fleet");
  explaining->add_option("--policy", options->policy, "Which of the fleet's policies; the last by default");
  explaining->add_option("--header", options->headers, "A header of the request, \"name: value\"");
  explaining->add_option("--busy", options->busy, "SERVER=REQUESTS that it is answering now");
  explaining->add_option("--down", options->down, "A server that is down");
  explaining->callback([options, &status] { status = exit_status(explain(*options)); });
}

}  // namespace

void add_route(CLI::App& program, int& status) {
  CLI::App* command = program.add_subcommand("route", "Try out routing policies");
  command->require_subcommand(1);
  CLI::App* simulating = command->add_subcommand("simulate", "Replay a trace over a described fleet, policy by policy");
  const auto options = std::make_shared<SimulateOptions>();
  simulating->add_option("--trace", options->trace, "CSV of requests")->required();
  simulating->add_option("--fleet", options->fleet, "YAML of servers and policies")->required();
  simulating->add_option("--policy", options->policies, "Only these policies of the fleet");
  simulating->add_option("--seed", options->seed, "Of the policies' randomness")->capture_default_str();
  simulating->add_flag("--json", options->as_json, "Print JSON");
  simulating->callback([options, &status] { status = exit_status(simulate(*options)); });
  add_explain(*command, status);
}

}  // namespace spillway::apps
