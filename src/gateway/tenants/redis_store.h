// The store of many gateways: keys, usage and audit log in one Redis. Keys are JSON in a hash, usage one hash a key and
// day, the audit log a list that is only pushed to; put_key is one transaction (MULTI).
#pragma once

#include <memory>

#include "gateway/tenants/redis_connection.h"
#include "gateway/tenants/store.h"

namespace spillway::gateway {

std::unique_ptr<TenantStore> make_redis_store(RedisOptions options);

}  // namespace spillway::gateway
