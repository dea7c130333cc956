// Whether the upstreams that policies name are there, and the models that aliases stand for: a misspelt one would
// quietly be nobody, and its rule or its experiment would do the opposite of what was meant. Not its job: the policies'
// other options (PolicyChain).
#pragma once

#include "gateway/options.h"

namespace spillway::gateway {

// Names, tiers and patterns after upstream=, use=, prefer= and avoid=. Of an upstream with discovery the addresses are
// found later; their names begin with its own and a dash.
Status check_policy_targets(const std::vector<std::string>& policies, const std::vector<UpstreamOptions>& upstreams);

// Each alias stands for a model of some upstream's (one that names no models has any).
Status check_aliases(const std::map<std::string, std::string>& aliases, const std::vector<UpstreamOptions>& upstreams);

}  // namespace spillway::gateway
