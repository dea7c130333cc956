// Upstream: one place that can answer, and what is known of it now: breaker, keys, requests under way, how many it can
// take, how fast it is. Owned by the gateway, shared by all I/O threads; every call locks for a moment. Not its job:
// connections (lane.h), choosing (policy.h), talking (attempt.h).
#pragma once

#include <algorithm>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "gateway/breaker.h"
#include "gateway/concurrency_limit.h"
#include "gateway/key_ring.h"
#include "gateway/latency_window.h"
#include "gateway/options.h"
#include "gateway/policy.h"
#include "net/tls_context.h"

namespace spillway::gateway {

// How an attempt ended, as its upstream is judged by it.
enum class Outcome {
  kAnswered,     // to the last byte
  kClientError,  // an answer that blames the request: the upstream works
  kFailed,       // no answer, a broken one, or 5xx
  kLimited,      // 429: the key (or the upstream) has had enough for now
  kBusy,         // 503: the upstream has more than it can take
  kKeyRefused,   // 401, 402, 403
  kAbandoned,    // the client left, or a hedge won: says nothing
};

class Upstream {
 public:
  explicit Upstream(UpstreamOptions options);

  const UpstreamOptions& options() const { return options_; }
  const UpstreamInfo& info() const { return options_.info; }
  std::string_view name() const { return options_.info.name; }
  // Its own name of a public model.
  std::string_view model_name(std::string_view model) const;

  // A request that was let in; told once how it ended.
  struct Ticket {
    size_t key = 0;
    int64_t prompt_tokens = 0;
    bool counted = false;  // prompt_tokens are still in the sum
  };
  // Lets a request in: breaker, a usable key, room under its limit. force: although it is out of service, for a
  // request that would otherwise end without any attempt.
  std::optional<Ticket> admit(TimePoint now, int64_t prompt_tokens, bool force = false);
  const std::string& key(const Ticket& ticket) const { return keys_.key(ticket.key); }

  // after: nothing where it says little of the upstream: a whole answer, whose time is its length.
  void first_token(Ticket& ticket, TimePoint now, std::optional<Duration> after);
  // rest: of a 429 or 503 with Retry-After. decoded: output tokens and the time from the first to the last.
  void finished(const Ticket& ticket, TimePoint now, Outcome outcome, std::optional<Duration> rest = {});
  void decoded(TimePoint now, int64_t tokens, Duration took);
  // What its health probe said, or its load report.
  void probed(TimePoint now, bool good);
  // It says itself that it is not well (stalled, its device lost, leaving): until it says otherwise, or for that long.
  void unwell(TimePoint until);
  void reported(TimePoint now, LoadReport report);

  UpstreamState state(TimePoint now) const;
  // Whether admit() would let one in now; when it might, if not.
  bool may_admit(TimePoint now) const;
  TimePoint may_admit_at(TimePoint now) const;
  bool open(TimePoint now) const;  // the breaker is: who fails there now needs no retry budget to go elsewhere
  std::optional<Duration> first_token_quantile(TimePoint now, double q);
  int in_flight() const;
  int limit() const;  // how many it is given at once now

  // It has refused max_tokens for this model of its: max_completion_tokens is asked for from then on.
  void wants_completion_tokens(std::string_view model);
  bool completion_tokens(std::string_view model) const;

  // Made at the first use, for reading the system's roots takes a while and memory.
  Result<net::TlsContext> tls();

 private:
  bool room(TimePoint now) const;
  TimePoint rests_until() const { return std::max(rests_until_, unwell_until_); }

  const UpstreamOptions options_;
  mutable std::mutex mutex_;
  mutable Breaker breaker_;
  mutable KeyRing keys_;
  ConcurrencyLimit limit_;
  LatencyWindow first_tokens_;
  int in_flight_ = 0;
  int64_t in_flight_prompt_tokens_ = 0;
  std::mutex tls_mutex_;
  net::TlsContext tls_;
  TimePoint rests_until_;                                 // it said Retry-After and has no other key
  TimePoint unwell_until_;                                // it said so
  std::set<std::string, std::less<>> completion_tokens_;  // its names of models
  ServiceRate rate_;
  std::optional<LoadReport> report_;
  int in_flight_at_report_ = 0;
  int64_t prompt_tokens_at_report_ = 0;
};

}  // namespace spillway::gateway
