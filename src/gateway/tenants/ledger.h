// TenantLedger: keys and their limits in memory, the hot path of Tenants. It learns keys from a store at start and when
// the store's version changes, counts in memory (or asks the shared limits of several gateways), and hands usage to a
// writer thread that adds it to the store every flush interval. A store that is down stops no request: usage waits in
// memory, merged by key, day and model, and is written when the store is back. A crash loses at most one interval.
// Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "gateway/tenants.h"
#include "gateway/tenants/limits.h"
#include "gateway/tenants/store.h"

namespace spillway::gateway {

struct LedgerOptions {
  std::string pepper;      // of key digests; empty: the store's own salt
  bool fail_open = false;  // when shared limits cannot be asked: count in this process alone, or refuse with 503
  Duration flush_interval = std::chrono::milliseconds(200);
  Duration refresh_interval = std::chrono::seconds(2);  // how late another gateway's change of a key is noticed
  std::shared_ptr<const Clock> clock;                   // of the windows; empty: the steady clock
  std::function<int64_t()> unix_s;                      // of budgets and expiry; empty: the system clock
};

class TenantLedger final : public Tenants {
 public:
  // Reads the store; fails when it cannot. shared may be null.
  static Result<std::unique_ptr<TenantLedger>> open(std::unique_ptr<TenantStore> store,
                                                    std::shared_ptr<SharedLimits> shared, LedgerOptions options);
  ~TenantLedger() override;  // flushes

  bool required() const override { return true; }
  api::Parsed<Caller> authenticate(std::string_view key) const override;
  void reserve(const Caller& caller, const Need& need, ReserveDone done) override;

  // ---- administration; these block on the store ----
  struct Created {
    std::string key;  // shown once
    KeyRecord record;
  };
  Result<Created> create(KeyRecord wanted, const std::string& actor);
  // change edits the record; not found, or what the store says.
  Result<KeyRecord> update(const std::string& id, const std::string& action, const std::string& actor,
                           const std::function<void(KeyRecord&)>& change);
  std::vector<KeyRecord> keys() const;
  Result<UsageTable> usage(const std::string& key_id, int64_t first_day);  // flushed first
  Result<std::vector<AuditEntry>> audit(int limit);
  int64_t unix_now() const { return options_.unix_s(); }

  // Writes what is pending; false when the store refused and it is kept.
  bool flush();
  // Reads the keys again if somebody changed them.
  Status refresh();

 protected:
  void settle(Reservation& reservation, const TokenUsage& usage, const Price& price) override;
  void refund(Reservation& reservation) override;

 private:
  struct Limits {
    std::mutex mutex;
    LimitState state;
  };
  struct Key {
    KeyRecord record;                // never changed: a change of the key is a new Key
    std::shared_ptr<Limits> limits;  // which goes on with these
  };
  struct DigestHash {
    size_t operator()(const KeyDigest& digest) const;
  };

  TenantLedger(std::unique_ptr<TenantStore> store, std::shared_ptr<SharedLimits> shared, LedgerOptions options);
  Status load();
  void put(const KeyRecord& record, const UsageTable& usage);
  std::shared_ptr<Key> find(const std::string& id) const;
  void work();
  int64_t now_s() const;
  LimitQuery query_of(const KeyRecord& record, const Need& need) const;
  Admission admission(const KeyRecord& record, const Need& need, const LimitAnswer& answer, bool shared);
  void finish(Reservation& reservation, const LimitOutcome& outcome);
  void book(const Reservation& reservation, const TokenUsage& usage, int64_t nanodollars);

  const std::unique_ptr<TenantStore> store_;
  const std::shared_ptr<SharedLimits> shared_;
  LedgerOptions options_;

  mutable std::shared_mutex keys_mutex_;
  std::unordered_map<KeyDigest, std::shared_ptr<Key>, DigestHash> by_digest_;
  std::unordered_map<std::string, std::shared_ptr<Key>> by_id_;
  int64_t version_ = -1;

  std::mutex flush_mutex_;  // one flush at a time
  std::mutex pending_mutex_;
  std::condition_variable wake_;
  UsageTable pending_;
  bool stopping_ = false;
  std::thread writer_;
};

}  // namespace spillway::gateway
