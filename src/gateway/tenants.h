// Tenants as the router sees them: who calls (a virtual key), what they may use, and the reservation that a request
// holds from admission to its last token. Limits are held against reservations, so that concurrent requests never pass
// a limit together: a request's prompt and possible output are reserved before it starts, and the part that was not
// used is given back when it is settled.
// Life of a request: authenticate ▸ reserve ▸ (upstream) ▸ settle with the usage of the model that truly answered, or
// refund when no upstream did any work. Each Reservation is settled or refunded exactly once; its destructor refunds
// what nobody settled. Any thread; no call blocks on disk or network.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"
#include "base/clock.h"
#include "base/result.h"
#include "gateway/policy.h"

namespace spillway::gateway {

// An authenticated caller.
struct Caller {
  std::string key_id;  // names the key in logs, usage and metrics; not secret
  std::string tenant;
  int priority = 0;                 // of its requests, at most
  std::vector<std::string> models;  // names or "prefix*"; empty: all

  // alias: of the model, whose right is the model's; may be empty.
  bool may_use(std::string_view model, std::string_view alias = {}) const;
};

struct TokenUsage {
  int64_t prompt_tokens = 0;  // with the cached ones
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
};

// What a request may come to, before it starts.
struct Need {
  std::string model;
  int64_t prompt_tokens = 0;  // estimated
  int64_t output_tokens = 0;  // max_tokens, or what is expected where the client named none
  Price price;                // of the dearest upstream it may go to
  std::string alias;          // by which the model was asked for; may be empty
};

struct Denial {
  api::ApiError error;                  // 401, 403, 402 (budget), 429 (rate), 503 (store down, fail_closed)
  std::optional<double> retry_after_s;  // of a 429: when as much will be free; nothing: never by waiting
};

class Tenants;

// Held by the request it admits. Move-only.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept { *this = std::move(other); }
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation() { refund(); }

  // Books what was used; the rest of the reservation is free again. price: of the upstream that answered.
  void settle(const TokenUsage& usage, const Price& price);
  // Nothing was used.
  void refund();
  bool held() const { return tenants_ != nullptr; }
  int64_t tokens() const { return tokens_; }

 private:
  friend class Tenants;
  friend class TenantLedger;
  Tenants* tenants_ = nullptr;  // outlives every reservation
  std::string key_id_;
  std::string model_;
  int64_t tokens_ = 0;
  int64_t cost_nanodollars_ = 0;
  int64_t slot_ = 0;     // when it was made, in the limiter's own time
  bool shared_ = false;  // counted in the shared store, not in this process alone
};

// A key's limits a minute, as they stand after a request was admitted or refused.
struct RateLimits {
  struct One {
    int64_t limit = 0;  // 0: none
    int64_t used = 0;
    int64_t reset_s = 0;  // until nothing of it is used
    int64_t left() const { return std::max<int64_t>(0, limit - used); }
  };
  One requests, tokens;
};

struct Admission {
  std::optional<Reservation> reservation;
  std::optional<Denial> denial;  // exactly one of the two
  RateLimits limits;
};

class Tenants {
 public:
  virtual ~Tenants() = default;

  // False: keys are not asked for, every caller is the same anonymous one without limits.
  virtual bool required() const = 0;

  // The caller of a key as presented ("sk-..."); 401 when unknown, revoked or expired. Memory only.
  virtual api::Parsed<Caller> authenticate(std::string_view key) const = 0;

  // done is called exactly once: before reserve returns when limits are in memory, later and on another thread when a
  // shared store answers.
  using ReserveDone = std::function<void(Admission)>;
  virtual void reserve(const Caller& caller, const Need& need, ReserveDone done) = 0;

 protected:
  friend class Reservation;
  virtual void settle(Reservation& reservation, const TokenUsage& usage, const Price& price) = 0;
  virtual void refund(Reservation& reservation) = 0;
};

}  // namespace spillway::gateway
