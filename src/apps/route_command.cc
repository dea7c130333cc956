// spillway route simulate|explain
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "apps/command.h"
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
    const bool wanted = options.policies.empty() ||
                        std::find(options.policies.begin(), options.policies.end(), policy.name) != options.policies.end();
    if (wanted) outcomes.push_back(gateway::simulate(trace, fleet, policy, options.seed));
  }
  if (outcomes.empty()) return invalid("--policy: expected the name of a policy in " + options.fleet);
  const std::string text = options.as_json ? gateway::outcomes_json(outcomes) + "\n" : gateway::render_outcomes(outcomes);
  std::fputs(text.c_str(), stdout);
  return 0;
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
}

}  // namespace spillway::apps
