#include "gateway/rate_limit_headers.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

namespace spillway::gateway {

void add_rate_limits(const RateLimits& limits, Protocol protocol, std::chrono::system_clock::time_point now,
                     net::Headers& headers) {
  const auto add = [&](std::string_view of, const RateLimits::One& one) {
    if (one.limit <= 0) return;
    if (protocol == Protocol::kOpenAi) {
      headers.add(fmt::format("x-ratelimit-limit-{}", of), std::to_string(one.limit));
      headers.add(fmt::format("x-ratelimit-remaining-{}", of), std::to_string(one.left()));
      headers.add(fmt::format("x-ratelimit-reset-{}", of), fmt::format("{}s", one.reset_s));
    } else {
      const auto at = std::chrono::system_clock::to_time_t(now + std::chrono::seconds(one.reset_s));
      headers.add(fmt::format("anthropic-ratelimit-{}-limit", of), std::to_string(one.limit));
      headers.add(fmt::format("anthropic-ratelimit-{}-remaining", of), std::to_string(one.left()));
      headers.add(fmt::format("anthropic-ratelimit-{}-reset", of),
                  fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(at)));
    }
  };
  add("requests", limits.requests);
  add("tokens", limits.tokens);
}

}  // namespace spillway::gateway
