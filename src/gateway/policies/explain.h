// A decision in words: which upstream gets the request and why, what the others had to offer, and who was left out.
#pragma once

#include <span>
#include <string>

#include "gateway/policy.h"

namespace spillway::gateway {

// decision: made with explain.
std::string explain_decision(const RequestFeatures& request, std::span<const UpstreamState> upstreams,
                             const Decision& decision);

}  // namespace spillway::gateway
