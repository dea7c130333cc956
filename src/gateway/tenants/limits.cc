#include "gateway/tenants/limits.h"

#include <algorithm>

namespace spillway::gateway {

void SlidingWindow::roll(int64_t now_s) {
  if (newest_ == INT64_MIN || now_s - newest_ >= kWindowS) {
    slots_.fill(0);
    sum_ = 0;
    newest_ = std::max(newest_, now_s);
    return;
  }
  while (newest_ < now_s) {
    int64_t& slot = slots_[static_cast<size_t>(++newest_ % kWindowS)];
    sum_ -= slot;
    slot = 0;
  }
}

int64_t SlidingWindow::sum(int64_t now_s) {
  roll(now_s);
  return sum_;
}

void SlidingWindow::add(int64_t slot, int64_t amount, int64_t now_s) {
  roll(now_s);
  if (slot > newest_ || slot <= newest_ - kWindowS || slot < 0) return;
  slots_[static_cast<size_t>(slot % kWindowS)] += amount;
  sum_ += amount;
}

double SlidingWindow::seconds_until(int64_t below, int64_t now_s) {
  roll(now_s);
  int64_t left = sum_;
  for (int64_t age = kWindowS - 1; age >= 0 && left >= below; --age) {
    const int64_t slot = newest_ - age;
    if (slot < 0) continue;
    left -= slots_[static_cast<size_t>(slot % kWindowS)];
    if (left < below) return static_cast<double>(kWindowS - age);
  }
  return left < below ? 0 : static_cast<double>(kWindowS);
}

void LimitState::enter(int64_t period) {
  if (period <= period_) return;
  period_ = period;
  spent_ = 0;
}

LimitAnswer LimitState::reserve(const LimitQuery& query, int64_t now_s) {
  LimitAnswer answer = decide(query, now_s);
  answer.requests_used = requests_.sum(now_s);
  answer.tokens_used = tokens_.sum(now_s);
  answer.requests_reset_s = int64_t(requests_.seconds_until(1, now_s));
  answer.tokens_reset_s = int64_t(tokens_.seconds_until(1, now_s));
  return answer;
}

LimitAnswer LimitState::decide(const LimitQuery& query, int64_t now_s) {
  enter(query.period);
  LimitAnswer answer;
  answer.slot = now_s;
  if (query.requests_per_minute > 0 && requests_.sum(now_s) >= query.requests_per_minute) {
    answer.verdict = LimitAnswer::kRequests;
    answer.retry_after_s = requests_.seconds_until(query.requests_per_minute, now_s);
    return answer;
  }
  answer.tokens = query.prompt_tokens + query.output_tokens;
  if (query.tokens_per_minute > 0) {
    const int64_t room = query.tokens_per_minute - tokens_.sum(now_s);
    if (query.prompt_tokens >= room) {
      const bool never = query.prompt_tokens >= query.tokens_per_minute;
      answer.verdict = never ? LimitAnswer::kTokensNever : LimitAnswer::kTokens;
      answer.retry_after_s = tokens_.seconds_until(query.tokens_per_minute - query.prompt_tokens, now_s);
      return answer;
    }
    answer.tokens = std::min(answer.tokens, room);
  }
  answer.nanodollars = query.need_nanodollars;
  if (query.budget_nanodollars > 0) {
    const int64_t unspent = query.budget_nanodollars - spent_;
    const int64_t room = unspent - reserved_;
    if (room <= 0 || query.prompt_nanodollars > room) {
      const bool gone = unspent <= 0 || query.prompt_nanodollars > unspent;
      answer.verdict = gone ? LimitAnswer::kBudget : LimitAnswer::kBudgetInUse;
      answer.retry_after_s = 1;
      return answer;
    }
    answer.nanodollars = std::min(answer.nanodollars, room);
  }
  requests_.add(now_s, 1, now_s);
  tokens_.add(now_s, answer.tokens, now_s);
  reserved_ += answer.nanodollars;
  return answer;
}

void LimitState::settle(const LimitOutcome& outcome, int64_t now_s) {
  enter(outcome.period);
  tokens_.add(outcome.slot, outcome.tokens_used - outcome.tokens_reserved, now_s);
  if (!outcome.request_counts) requests_.add(outcome.slot, -1, now_s);
  reserved_ -= outcome.nanodollars_reserved;
  spent_ += outcome.nanodollars_used;
}

}  // namespace spillway::gateway
