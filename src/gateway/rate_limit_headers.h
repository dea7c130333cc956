// What a key has left this minute, in the headers that the official clients read: x-ratelimit-* of OpenAI's,
// anthropic-ratelimit-* of Anthropic's. Pure; any thread.
#pragma once

#include <chrono>

#include "gateway/answer_facts.h"
#include "gateway/tenants.h"
#include "net/http_message.h"

namespace spillway::gateway {

// protocol: of the client. Limits that the key does not have are not told.
void add_rate_limits(const RateLimits& limits, Protocol protocol, std::chrono::system_clock::time_point now,
                     net::Headers& headers);

}  // namespace spillway::gateway
