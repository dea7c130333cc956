#include "gateway/breaker.h"

#include <algorithm>

namespace spillway::gateway {
namespace {

// A probe whose outcome nobody told is forgotten after this.
constexpr Duration kProbeForgotten = std::chrono::seconds(30);
constexpr double kShareMin = 0.1;

}  // namespace

Breaker::State Breaker::state(TimePoint now) const {
  return state_ == State::kOpen && now >= until_ ? State::kHalfOpen : state_;
}

bool Breaker::admit(TimePoint now) {
  if (state_ == State::kOpen && now >= until_) {
    state_ = State::kHalfOpen;
    good_probes_ = 0;
    probing_ = false;
  }
  if (state_ == State::kClosed) return true;
  if (state_ == State::kOpen) return false;
  if (probing_ && now - probe_began_ < kProbeForgotten) return false;
  probing_ = true;
  probe_began_ = now;
  return true;
}

void Breaker::roll(TimePoint now) {
  const Duration half = options_.window / 2;
  if (now - half_began_ < half) return;
  const bool skipped = now - half_began_ >= options_.window;
  good_[1] = skipped ? 0 : good_[0];
  bad_[1] = skipped ? 0 : bad_[0];
  good_[0] = bad_[0] = 0;
  half_began_ = now;
}

void Breaker::succeeded(TimePoint now) {
  roll(now);
  in_row_ = 0;
  ++good_[0];
  if (state_ == State::kHalfOpen) {
    probing_ = false;
    if (++good_probes_ < options_.probes_to_close) return;
    state_ = State::kClosed;
    closed_at_ = now;
    good_[0] = good_[1] = bad_[0] = bad_[1] = 0;
  } else if (state_ == State::kClosed && times_opened_ > 0 && now - closed_at_ >= options_.open_max) {
    --times_opened_;
    closed_at_ = now - options_.slow_start;
  }
}

void Breaker::failed(TimePoint now) {
  roll(now);
  ++bad_[0];
  ++in_row_;
  if (state_ == State::kOpen) return;  // of a request sent before it opened
  if (state_ == State::kHalfOpen) return open(now);
  const int64_t bad = bad_[0] + bad_[1], all = bad + good_[0] + good_[1];
  const bool by_share = all >= options_.samples_min && double(bad) >= options_.failure_share * double(all);
  if (in_row_ >= options_.failures_in_row || by_share) open(now);
}

void Breaker::abandoned() { probing_ = false; }

void Breaker::open(TimePoint now) {
  const Duration lasts = std::min(options_.open * (int64_t{1} << std::min(times_opened_, 16)), options_.open_max);
  ++times_opened_;
  open_until(now + lasts);
}

void Breaker::open_until(TimePoint until) {
  if (state_ == State::kOpen && until_ >= until) return;
  state_ = State::kOpen;
  until_ = until;
  in_row_ = 0;
  probing_ = false;
}

double Breaker::share(TimePoint now) const {
  if (state_ != State::kClosed) return kShareMin;
  if (times_opened_ == 0 || now - closed_at_ >= options_.slow_start) return 1;
  return std::max(kShareMin, seconds(now - closed_at_) / seconds(options_.slow_start));
}

}  // namespace spillway::gateway
