// The arithmetic of limits, the same in this process and in the shared store. A key's requests and tokens of the last
// minute are kept by the second in which they were reserved, so that in any minute no more than the limit is reserved.
// A request is admitted while its prompt still fits; what it may answer is reserved as far as there is room. A small
// key thus gets its whole limit, nobody is held to a fixed minimum, and since an admitted request takes the room it may
// need, concurrent requests overshoot together by no more than one of them can alone.
// Plain state, no lock, no clock: the owner brings both.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace spillway::gateway {

inline constexpr int64_t kWindowS = 60;

// What one request asks of one key's limits; 0 as a limit: none.
struct LimitQuery {
  std::string key_id;
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t budget_nanodollars = 0;
  int64_t period = 0;  // number of the budget period now
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  int64_t prompt_nanodollars = 0;
  int64_t need_nanodollars = 0;  // prompt and output
};

struct LimitAnswer {
  enum Verdict { kAdmitted, kRequests, kTokens, kTokensNever, kBudget, kBudgetInUse } verdict = kAdmitted;
  int64_t tokens = 0;       // reserved
  int64_t nanodollars = 0;  // reserved
  int64_t slot = 0;
  double retry_after_s = 0;
  // Of the last minute, with this request where it is admitted; the seconds until none is left of it.
  int64_t requests_used = 0, tokens_used = 0;
  int64_t requests_reset_s = 0, tokens_reset_s = 0;
};

// What becomes of a reservation.
struct LimitOutcome {
  std::string key_id;
  int64_t slot = 0;
  int64_t period = 0;
  int64_t tokens_reserved = 0, tokens_used = 0;
  int64_t nanodollars_reserved = 0, nanodollars_used = 0;
  bool request_counts = true;  // false: refunded
};

// Sums over the last kWindowS seconds, by second.
class SlidingWindow {
 public:
  int64_t sum(int64_t now_s);
  void add(int64_t slot, int64_t amount, int64_t now_s);  // slots that left the window are forgotten
  // Seconds until the sum has fallen below `below`, if nothing is added.
  double seconds_until(int64_t below, int64_t now_s);

 private:
  void roll(int64_t now_s);
  std::array<int64_t, kWindowS> slots_{};
  int64_t newest_ = INT64_MIN;
  int64_t sum_ = 0;
};

// One key's.
class LimitState {
 public:
  LimitAnswer reserve(const LimitQuery& query, int64_t now_s);
  void settle(const LimitOutcome& outcome, int64_t now_s);
  void set_spent(int64_t period, int64_t nanodollars) {
    period_ = period;
    spent_ = nanodollars;
  }
  int64_t spent() const { return spent_; }
  int64_t tokens_in_window(int64_t now_s) { return tokens_.sum(now_s); }

 private:
  LimitAnswer decide(const LimitQuery& query, int64_t now_s);
  // Only forward: a wall clock set back does not give a budget twice, and one set forward ends a period once.
  void enter(int64_t period);

  SlidingWindow requests_, tokens_;
  int64_t period_ = INT64_MIN;
  int64_t spent_ = 0;     // nanodollars in period_
  int64_t reserved_ = 0;  // nanodollars of requests under way
};

// Limits that several gateways share. Never blocks its caller; calls back once, on a thread of its own.
class SharedLimits {
 public:
  virtual ~SharedLimits() = default;
  // Nothing: the store could not be asked.
  virtual void reserve(LimitQuery query, std::function<void(std::optional<LimitAnswer>)> done) = 0;
  virtual void settle(LimitOutcome outcome) = 0;
};

}  // namespace spillway::gateway
