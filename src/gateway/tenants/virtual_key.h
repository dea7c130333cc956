// Virtual keys: what a client presents, and what is kept of it. A key is "sk-sw-" and 43 random characters (256 bits);
// kept is only HMAC-SHA256 of it under a pepper, so that a copy of the database opens nothing. Pure; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::gateway {

using KeyDigest = std::array<unsigned char, 32>;

Result<std::string> make_virtual_key();  // fails only when the system has no randomness
Result<std::string> make_key_id();       // "key-" and 12 hexadecimal digits; not secret
KeyDigest key_digest(std::string_view key, std::string_view pepper);
bool same_digest(const KeyDigest& a, const KeyDigest& b);  // in constant time

enum class BudgetPeriod { kTotal, kDay, kMonth };
std::string_view period_name(BudgetPeriod period);
Result<BudgetPeriod> parse_period(std::string_view text);
// Number of the period that a moment (seconds since 1970, UTC) lies in; rises with time.
int64_t period_number(BudgetPeriod period, int64_t unix_s);
int64_t first_day_of(BudgetPeriod period, int64_t number);  // days since 1970

// A key as it is administered and stored. 0 means no limit.
struct KeyRecord {
  std::string id;
  KeyDigest digest{};
  std::string name;
  std::string tenant;
  std::vector<std::string> models;  // names or "prefix*"; empty: all
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t budget_nanodollars = 0;
  BudgetPeriod budget_period = BudgetPeriod::kTotal;
  int priority = 0;
  int64_t created_unix_s = 0;
  int64_t expires_unix_s = 0;  // 0: never
  bool revoked = false;
};

}  // namespace spillway::gateway
