// RedisLimits: one minute's counts and one budget of each key, shared by all gateways. Each reservation is one Lua
// script, so that it is atomic whoever asks; the time is Redis's own, so that gateways' clocks do not matter. One
// thread owns the connection and sends whatever has gathered as one batch. The arithmetic is that of limits.h.
#pragma once

#include <memory>

#include "gateway/tenants/limits.h"
#include "gateway/tenants/redis_connection.h"

namespace spillway::gateway {

// Never fails: while Redis cannot be reached, reservations are answered with nothing, and settlements are kept (at most
// so many) and sent later.
std::unique_ptr<SharedLimits> make_redis_limits(RedisOptions options);

}  // namespace spillway::gateway
