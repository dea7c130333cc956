// KeyRecord as JSON: whole for stores, without the digest for administrators.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "gateway/tenants/virtual_key.h"

namespace spillway::gateway {

boost::json::object describe_key(const KeyRecord& key);
// What is different, for the audit log: {"FIELD": [BEFORE, AFTER]}.
std::string describe_change(const KeyRecord& before, const KeyRecord& after);
std::string stored_key(const KeyRecord& key);
Result<KeyRecord> parse_stored_key(std::string_view json);

// Sets what the object names (name, tenant, models, requests_per_minute, tokens_per_minute, budget_usd, budget_period,
// priority, expires_at); refuses other members and wrong types, naming the field.
Status apply_key_fields(const boost::json::object& fields, KeyRecord& key);

}  // namespace spillway::gateway
