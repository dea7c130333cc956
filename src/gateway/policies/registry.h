// The table of policies: one row each. A new policy is a file and a row.
#pragma once

#include <memory>
#include <span>

#include "gateway/policies/options.h"
#include "gateway/policy.h"

namespace spillway::gateway {

struct PolicyRow {
  const char* name;
  const char* help;
  std::unique_ptr<Policy> (*make)(PolicyOptions& options);  // options.done() is the caller's business
};

std::span<const PolicyRow> policy_rows();

std::unique_ptr<Policy> make_rule(PolicyOptions& options);
std::unique_ptr<Policy> make_weighted(PolicyOptions& options);
std::unique_ptr<Policy> make_least_loaded(PolicyOptions& options);
std::unique_ptr<Policy> make_least_predicted(PolicyOptions& options);
std::unique_ptr<Policy> make_prefix_affinity(PolicyOptions& options);
std::unique_ptr<Policy> make_cost_ceiling(PolicyOptions& options);
std::unique_ptr<Policy> make_edge_first(PolicyOptions& options);
std::unique_ptr<Policy> make_centre_first(PolicyOptions& options);
std::unique_ptr<Policy> make_canary(PolicyOptions& options);
std::unique_ptr<Policy> make_shadow(PolicyOptions& options);

}  // namespace spillway::gateway
