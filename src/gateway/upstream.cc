#include "gateway/upstream.h"

#include <algorithm>

namespace spillway::gateway {
namespace {

constexpr Duration kRestUnsaid = std::chrono::seconds(2);  // of a 429 without Retry-After
constexpr Duration kRestMax = std::chrono::minutes(5);
constexpr double kSmoothing = 0.1;

void smooth(double& value, double sample) { value = value == 0 ? sample : value + kSmoothing * (sample - value); }

}  // namespace

std::string_view kind_name(UpstreamKind kind) {
  switch (kind) {
    case UpstreamKind::kLocal:
      return "local";
    case UpstreamKind::kOpenAi:
      return "openai";
    case UpstreamKind::kDeepSeek:
      return "deepseek";
    case UpstreamKind::kAnthropic:
      return "anthropic";
    case UpstreamKind::kSpillway:
      return "spillway";
  }
  return "";
}

Upstream::Upstream(UpstreamOptions options)
    : options_(std::move(options)), breaker_(options_.breaker), keys_(options_.keys), limit_(options_.concurrency) {}

std::string_view Upstream::model_name(std::string_view model) const {
  const auto found = options_.models.find(std::string(model));
  return found == options_.models.end() ? model : std::string_view(found->second);
}

// Who comes back from an ejection gets a growing share of what it can take.
bool Upstream::room(TimePoint now) const {
  const int most = std::min(options_.info.concurrency_max, limit_.limit());
  return in_flight_ < std::max(1, int(most * breaker_.share(now)));
}

std::optional<Upstream::Ticket> Upstream::admit(TimePoint now, int64_t prompt_tokens, bool force) {
  std::lock_guard lock(mutex_);
  const int most = std::min(options_.info.concurrency_max, limit_.limit());
  if (force ? in_flight_ >= most : now < rests_until() || !room(now)) return std::nullopt;
  auto key = keys_.next(now);
  if (!key && !force) return std::nullopt;
  if (!breaker_.admit(now) && !force) return std::nullopt;
  ++in_flight_;
  in_flight_prompt_tokens_ += prompt_tokens;
  return Ticket{key.value_or(0), prompt_tokens, true};
}

void Upstream::first_token(Ticket& ticket, TimePoint now, std::optional<Duration> after) {
  std::lock_guard lock(mutex_);
  if (ticket.counted) in_flight_prompt_tokens_ -= ticket.prompt_tokens;
  ticket.counted = false;
  if (!after) return;
  first_tokens_.add(now, *after);
  limit_.first_token(now, *after, in_flight_);
  if (ticket.prompt_tokens >= 64 && after->count() > 0) {
    smooth(rate_.prefill_tokens_per_s, double(ticket.prompt_tokens) / seconds(*after));
  }
}

void Upstream::finished(const Ticket& ticket, TimePoint now, Outcome outcome, std::optional<Duration> rest) {
  std::lock_guard lock(mutex_);
  const int in_flight = in_flight_--;
  if (ticket.counted) in_flight_prompt_tokens_ -= ticket.prompt_tokens;
  const Duration resting = std::min(rest.value_or(kRestUnsaid), kRestMax);
  switch (outcome) {
    case Outcome::kAnswered:
    case Outcome::kClientError:
      keys_.worked(ticket.key);
      breaker_.succeeded(now);
      break;
    case Outcome::kFailed:
      breaker_.failed(now);
      break;
    case Outcome::kLimited:
      limit_.refused(now, in_flight);
      breaker_.abandoned();
      if (keys_.none())
        rests_until_ = std::max(rests_until_, now + resting);
      else
        keys_.limited(ticket.key, now, resting);
      break;
    case Outcome::kBusy:
      limit_.refused(now, in_flight);
      breaker_.failed(now);
      if (rest) rests_until_ = std::max(rests_until_, now + resting);
      break;
    case Outcome::kKeyRefused:
      keys_.refused(ticket.key, now);
      breaker_.abandoned();
      break;
    case Outcome::kAbandoned:
      breaker_.abandoned();
      break;
  }
}

void Upstream::decoded(TimePoint, int64_t tokens, Duration took) {
  if (tokens < 8 || took.count() <= 0) return;
  std::lock_guard lock(mutex_);
  smooth(rate_.decode_tokens_per_s, double(tokens) / seconds(took));
}

void Upstream::unwell(TimePoint until) {
  std::lock_guard lock(mutex_);
  unwell_until_ = until;
}

void Upstream::probed(TimePoint now, bool good) {
  std::lock_guard lock(mutex_);
  if (good) unwell_until_ = TimePoint();
  if (!good) {
    breaker_.failed(now);
  } else if (breaker_.state(now) == Breaker::State::kHalfOpen && breaker_.admit(now)) {
    breaker_.succeeded(now);
  }
}

void Upstream::reported(TimePoint now, LoadReport report) {
  std::lock_guard lock(mutex_);
  report.at = now;
  limit_.queue_wait(now, from_seconds(report.predicted_wait_s), in_flight_);
  report_ = report;
  in_flight_at_report_ = in_flight_;
  prompt_tokens_at_report_ = in_flight_prompt_tokens_;
}

UpstreamState Upstream::state(TimePoint now) const {
  std::lock_guard lock(mutex_);
  UpstreamState state;
  state.info = &options_.info;
  const bool resting = now < rests_until() || keys_.usable_at(now) > now;
  switch (breaker_.state(now)) {
    case Breaker::State::kClosed:
      state.health = Health::kHealthy;
      break;
    case Breaker::State::kHalfOpen:
      state.health = Health::kProbing;
      break;
    case Breaker::State::kOpen:
      state.health = Health::kDown;
      break;
  }
  if (resting) state.health = Health::kDown;
  state.share = breaker_.share(now);
  state.in_flight = in_flight_;
  state.in_flight_prompt_tokens = in_flight_prompt_tokens_;
  state.in_flight_at_report = in_flight_at_report_;
  state.prompt_tokens_at_report = prompt_tokens_at_report_;
  state.rate = rate_;
  state.report = report_;
  return state;
}

bool Upstream::may_admit(TimePoint now) const {
  std::lock_guard lock(mutex_);
  return now >= rests_until() && room(now) && keys_.usable_at(now) <= now &&
         breaker_.state(now) != Breaker::State::kOpen;
}

TimePoint Upstream::may_admit_at(TimePoint now) const {
  std::lock_guard lock(mutex_);
  TimePoint at = std::max({now, rests_until(), keys_.usable_at(now)});
  if (breaker_.state(now) == Breaker::State::kOpen) at = std::max(at, breaker_.opens_again_at());
  return at;
}

bool Upstream::open(TimePoint now) const {
  std::lock_guard lock(mutex_);
  return breaker_.state(now) != Breaker::State::kClosed || now < rests_until() || keys_.usable_at(now) > now;
}

std::optional<Duration> Upstream::first_token_quantile(TimePoint now, double q) {
  std::lock_guard lock(mutex_);
  return first_tokens_.quantile(now, q);
}

void Upstream::wants_completion_tokens(std::string_view model) {
  std::lock_guard lock(mutex_);
  completion_tokens_.emplace(model);
}

bool Upstream::completion_tokens(std::string_view model) const {
  std::lock_guard lock(mutex_);
  return completion_tokens_.contains(model);
}

Result<net::TlsContext> Upstream::tls() {
  std::lock_guard lock(tls_mutex_);
  if (!tls_) {
    SW_ASSIGN(tls_, net::make_client_tls(options_.tls_ca_file, options_.tls_verify));
  }
  return tls_;
}

int Upstream::in_flight() const {
  std::lock_guard lock(mutex_);
  return in_flight_;
}

int Upstream::limit() const {
  std::lock_guard lock(mutex_);
  return std::min(options_.info.concurrency_max, limit_.limit());
}

}  // namespace spillway::gateway
