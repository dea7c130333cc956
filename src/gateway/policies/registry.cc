#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr PolicyRow kRows[] = {
    {"rule", "requests with the named features use, prefer or avoid the named upstreams", make_rule},
    {"weighted", "shares requests by weight", make_weighted},
    {"least_loaded", "the upstream with the least of its concurrency in use", make_least_loaded},
    {"least_predicted", "the upstream predicted to give the last token soonest", make_least_predicted},
    {"prefix_affinity", "upstreams that have the prompt's beginning in their cache, unless they are the busiest",
     make_prefix_affinity},
    {"cost_ceiling", "nobody who would cost more than this", make_cost_ceiling},
    {"edge_first", "short requests to the edge while it has room, long ones to the centre", make_edge_first},
    {"centre_first", "the centre while it has room, then the edge", make_centre_first},
    {"canary", "a fixed part of the sessions tries one upstream, all others stay away from it", make_canary},
    {"shadow", "a part of the requests is copied to one upstream and its answers thrown away", make_shadow},
};

}  // namespace

std::span<const PolicyRow> policy_rows() { return kRows; }

}  // namespace spillway::gateway
