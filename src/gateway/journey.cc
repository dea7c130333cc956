#include "gateway/journey.h"

#include <algorithm>
#include <mutex>
#include <random>

#include "base/trace.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter attempts_total{
    "spillway_gateway_attempts_total", "Attempts by upstream and how they ended.", {"upstream", "result"}};
metrics::Counter retries_total{"spillway_gateway_retries_total", "Further attempts, by why.", {"reason"}};

constexpr Duration kBudgetPoll = std::chrono::milliseconds(10);

TimePoint now() { return std::chrono::steady_clock::now(); }

double jitter() {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.5, 1.5)(generator);
}

}  // namespace

Journey::Journey(std::shared_ptr<Gateway> gateway, std::shared_ptr<Lane> lane, std::shared_ptr<const Call> call,
                 net::ResponseWriter& writer)
    : gateway_(std::move(gateway)),
      lane_(std::move(lane)),
      held_call_(std::move(call)),
      call_(*held_call_),
      writer_(writer),
      leaving_(std::make_shared<Leaving>()),
      priority_(call_.features.priority) {
  leaving_->signal = std::make_shared<net::Signal>(lane_->executor());
}

Journey::~Journey() {
  if (patience_) patience_->journey = nullptr;
  if (leads_) gateway_->around().coalescer->abandon(shared_key_);
  if (place_) gateway_->waiting().leave(place_, false, now());
  leaving_->running.clear();
  if (attempt_) attempt_->conclude(Outcome::kAbandoned);
  gateway_->waiting().freed();
}

asio::awaitable<Answered> Journey::run() {
  writer_.on_disconnect([leaving = leaving_] {
    leaving->left = true;
    for (const auto& attempt : leaving->running) attempt->cancel();
    leaving->signal->notify();
  });
  bool admitted = is_free(), spared = false;
  if (!admitted) admitted = co_await admit();
  if (admitted && may_be_spared()) spared = co_await answer_from_others();
  if (admitted && !spared) co_await serve();
  settle();
  finish_log();
  co_return answered_;
}

asio::awaitable<void> Journey::serve() {
  gateway_->retry_budget().request(now());
  begin_patience();
  Step step = co_await try_upstreams();
  co_await end_patience();
  if (left()) {
    set_answered(499, "cancelled");
    if (attempt_) attempt_->conclude(Outcome::kAbandoned);
  } else if (step.kind == Step::Kind::kFailed && call_.endpoint == Endpoint::kCountTokens && step.status != 404) {
    co_await send_estimate();
  } else if (step.kind == Step::Kind::kFailed) {
    co_await tell_error(step);
  } else if (step.kind == Step::Kind::kForClient) {
    attempt_->conclude(step.outcome);
    gateway_->waiting().freed();
    set_answered(step.status, step.reason);
    co_await send_whole(step.status);
  } else if (!call_.scan.stream) {
    conclude_answered();
    set_answered(200, "ok");
    share();
    co_await send_whole(200);
  } else {
    co_await relay();
  }
  leaving_->running.clear();
}

bool Journey::is_free() const {
  const Tenants* tenants = gateway_->around().tenants;
  return tenants == nullptr || !tenants->required();
}

asio::awaitable<bool> Journey::admit() {
  Tenants* tenants = gateway_->around().tenants;
  auto caller = tenants->authenticate(call_.client_key);
  if (!caller.ok()) {
    ApiError error = caller.error();
    co_await send_error(std::move(error));
    co_return false;
  }
  caller_ = std::move(caller).value();
  priority_ = std::min(priority_, caller_.priority);
  if (!caller_.may_use(call_.features.model, call_.alias)) {
    const std::string& asked = call_.alias.empty() ? call_.features.model : call_.alias;
    ApiError error{ErrorKind::kPermission, "This key may not use the model `" + asked + "`.", "model", ""};
    co_await send_error(std::move(error));
    co_return false;
  }
  Need need;
  need.model = call_.features.model;
  need.alias = call_.alias;
  if (call_.costs()) need.prompt_tokens = call_.features.prompt_tokens;
  if (call_.generates()) {
    need.output_tokens = call_.scan.n * call_.scan.max_tokens.value_or(output_tokens_expected(call_.features));
  }
  for (const auto& upstream : gateway_->upstreams()) {
    if (!call_.costs()) break;
    need.price.input = std::max(need.price.input, upstream->info().price.input);
    need.price.output = std::max(need.price.output, upstream->info().price.output);
  }
  struct Waiting {
    std::shared_ptr<net::Signal> signal;
    std::mutex mutex;
    std::optional<Admission> admission;
  };
  auto waiting = std::make_shared<Waiting>();
  waiting->signal = std::make_shared<net::Signal>(lane_->executor());
  tenants->reserve(caller_, need, [waiting](Admission admission) {
    {
      std::lock_guard lock(waiting->mutex);
      waiting->admission = std::move(admission);
    }
    waiting->signal->notify();
  });
  const bool told = co_await waiting->signal->wait_until(call_.deadline);
  if (!told) {
    ApiError error{ErrorKind::kOverloaded, "The quota store did not answer in time.", "", ""};
    co_await send_error(std::move(error));
    co_return false;
  }
  std::optional<Admission> admission;
  {
    std::lock_guard lock(waiting->mutex);
    admission = std::move(waiting->admission);
  }
  limits_ = admission->limits;
  if (admission->denial) {
    std::optional<Duration> after;
    if (admission->denial->retry_after_s) after = from_seconds(*admission->denial->retry_after_s);
    ApiError error = std::move(admission->denial->error);
    co_await send_error(std::move(error), after);
    co_return false;
  }
  reservation_ = std::move(*admission->reservation);
  co_return true;
}

asio::awaitable<Step> Journey::try_upstreams() {
  last_ = {};
  last_.kind = Step::Kind::kFailed;
  last_.reason = "none_available";
  for (;;) {
    if (attempts_ >= gateway_->options().attempts_max) co_return last_;
    bool chosen = choose_at_once();
    if (!chosen) chosen = co_await choose();
    if (!chosen) co_return last_;
    const int64_t traced = trace::begin_async();
    Step step = co_await first_token();
    trace::end_async("gateway", "attempt", reinterpret_cast<uintptr_t>(this), traced, "attempt", attempts_);
    if (left()) co_return step;
    const bool first_of_stream = step.kind == Step::Kind::kGood && call_.scan.stream;
    if (first_of_stream) co_return step;  // goes out first; relay() books it
    count_attempt(*attempt_, step.kind == Step::Kind::kGood ? "ok" : step.reason);
    if (step.kind == Step::Kind::kForClient && step.reason == kContextLength && leave_short_contexts())
      step.kind = Step::Kind::kFailed;
    if (step.kind != Step::Kind::kFailed) {
      mark(metrics::Moment::Kind::kFirstByte, last_upstream_);
      co_return step;
    }
    mark(metrics::Moment::Kind::kFailed, last_upstream_ + ": " + step.reason);
    note_failure(attempt_, current_, step);
    attempt_.reset();
    const bool may = co_await await_budget(was_open_);
    if (!may) co_return last_;
    retries_total.with({step.reason}).add();
  }
}

void Journey::count_attempt(Attempt& attempt, const char* result) {
  attempts_total.with({attempt.upstream().name(), result}).add();
}

void Journey::conclude_answered() {
  attempt_->conclude(Outcome::kAnswered);
  gateway_->waiting().answered(call_.features.model, attempt_->age());
  gateway_->waiting().freed();
}

void Journey::note_failure(const std::shared_ptr<Attempt>& attempt, size_t index, const Step& step) {
  // A client's deadline that comes sooner than answers usually do says nothing of the upstream.
  const bool cut = step.outcome == Outcome::kFailed && now() >= call_.deadline;
  const bool blameless = cut && attempt->age() < gateway_->waiting().service(call_.features.model);
  attempt->conclude(blameless ? Outcome::kAbandoned : step.outcome, step.rest);
  if (cut) gateway_->waiting().answered(call_.features.model, attempt->age());
  gateway_->waiting().freed();
  Upstream& upstream = attempt->upstream();
  if (gateway_->around().spans != nullptr) {
    spans_.push_back({attempt->span(), std::string(upstream.name()), std::string(kind_name(upstream.options().kind)),
                      step.reason, step.status, attempt->began_at(), std::chrono::system_clock::now()});
  }
  was_open_ = upstream.open(now());
  const bool key_left = step.outcome == Outcome::kKeyRefused || step.outcome == Outcome::kLimited;
  again_.reset();
  if (step.outcome == Outcome::kClientError) {
    unfit_.insert(index);
    was_open_ = true;  // who goes elsewhere for want of a model is no load that comes twice
  } else if (step.again && step.outcome == Outcome::kAbandoned) {
    again_ = index;  // in words that it takes
    was_open_ = true;
  } else if (key_left && upstream.may_admit(now())) {
    again_ = index;  // with another key
  } else if (step.again && !asked_again_ && !was_open_) {
    again_ = index;
    asked_again_ = true;
  } else {
    tried_.insert(index);
  }
  last_ = step;
  forget(attempt);
}

// A further attempt needs the fleet's budget, unless the upstream that failed is out of service: what moves away from
// it is no load that comes twice.
asio::awaitable<bool> Journey::await_budget(bool free) {
  while (!free && !gateway_->retry_budget().take(now())) {
    if (left() || now() >= call_.deadline) co_return false;
    co_await pause(kBudgetPoll);
  }
  co_return !left() && now() < call_.deadline;
}

asio::awaitable<void> Journey::pause(Duration time, TimePoint until) {
  const auto jittered = std::chrono::duration_cast<Duration>(time * jitter());
  const TimePoint at = std::min(now() + jittered, std::min(until, call_.deadline));
  co_await leaving_->signal->wait_until(at);
}

void Journey::mark(metrics::Moment::Kind kind, std::string_view note) const {
  if (const auto& timeline = call_.request.timeline) timeline->add(kind, now(), 0, 0, note);
}

void Journey::settle() {
  if (!reservation_.held()) return;
  // What an upstream computed is paid for, also when the stream broke or the client left.
  const std::shared_ptr<Attempt>& spent = attempt_ ? attempt_ : broken_;
  const bool used = spent && (answered_.status == 200 || spent->text_bytes() > 0);
  if (!used) {
    reservation_.refund();
    return;
  }
  TokenUsage usage = spent->usage();
  if (!spent->has_usage()) {  // an upstream that tells none: by the text that came
    usage.prompt_tokens = call_.costs() ? call_.features.prompt_tokens : 0;
    usage.output_tokens = std::max<int64_t>(call_.generates() ? 1 : 0, spent->text_bytes() / 4);
  }
  reservation_.settle(usage, spent->upstream().info().price);
}

}  // namespace spillway::gateway
