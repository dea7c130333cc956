// TenantStore: where keys, usage and the audit log are kept. Every call may block on disk or network: none is made on
// an I/O thread. Implementations: sqlite_store.h, redis_store.h. One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "gateway/tenants/virtual_key.h"

namespace spillway::gateway {

struct UsageKey {
  std::string key_id;
  int64_t day = 0;  // since 1970, UTC
  std::string model;
  auto operator<=>(const UsageKey&) const = default;
};

struct UsageSum {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  int64_t nanodollars = 0;

  UsageSum& operator+=(const UsageSum& other) {
    requests += other.requests;
    prompt_tokens += other.prompt_tokens;
    cached_tokens += other.cached_tokens;
    output_tokens += other.output_tokens;
    nanodollars += other.nanodollars;
    return *this;
  }
};

using UsageTable = std::map<UsageKey, UsageSum>;

struct AuditEntry {
  int64_t at_unix_s = 0;
  std::string actor;    // who asked: "admin", and from where
  std::string action;   // "key.create", "key.revoke", "key.update"
  std::string subject;  // key id
  std::string detail;   // JSON
};

class TenantStore {
 public:
  virtual ~TenantStore() = default;

  // Random, made once for a store; the default pepper.
  virtual Result<std::string> salt() = 0;
  virtual Result<std::vector<KeyRecord>> keys() = 0;
  // Writes the key and the entry together or neither; durable when it returns.
  virtual Status put_key(const KeyRecord& key, const AuditEntry& entry) = 0;
  // Adds to what is there, all or nothing.
  virtual Status add_usage(const UsageTable& usage) = 0;
  // Of the key (empty: of all) from that day on.
  virtual Result<UsageTable> usage(const std::string& key_id, int64_t first_day) = 0;
  // The newest first.
  virtual Result<std::vector<AuditEntry>> audit(int limit) = 0;
  // Changes whenever a key was written by anyone.
  virtual Result<int64_t> version() = 0;
};

}  // namespace spillway::gateway
