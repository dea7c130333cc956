#include "gateway/policies/registry.h"

namespace spillway::gateway {
namespace {

constexpr PolicyRow kRows[] = {
    {"rule", "requests with the named features use, prefer or avoid the named upstreams", make_rule},
    {"weighted", "shares requests by weight", make_weighted},
};

}  // namespace

std::span<const PolicyRow> policy_rows() { return kRows; }

}  // namespace spillway::gateway
