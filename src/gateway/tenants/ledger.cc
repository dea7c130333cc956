#include "gateway/tenants/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/log.h"
#include "gateway/tenants/key_json.h"
#include "metrics/metrics.h"

namespace spillway::gateway {
namespace {

metrics::Counter denials{"spillway_tenant_denials_total", "Requests refused to a virtual key, by reason.", {"reason"}};
metrics::Counter store_failures{"spillway_tenant_store_failures_total", "Times the tenant store could not be used."};
metrics::Gauge usage_pending{"spillway_tenant_usage_pending",
                             "Usage rows that wait to be written to the tenant store."};

int64_t nanodollars(int64_t tokens, double usd_per_million) {
  return std::llround(static_cast<double>(tokens) * usd_per_million * 1000);
}

int64_t system_unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

api::ApiError error(api::ErrorKind kind, std::string message, std::string code = "") {
  return {kind, std::move(message), "", std::move(code)};
}

Denial denial(const KeyRecord& key, const Need& need, const LimitAnswer& answer) {
  using Kind = api::ErrorKind;
  switch (answer.verdict) {
    case LimitAnswer::kRequests:
      denials.with({"requests"}).add();
      return {error(Kind::kRateLimit,
                    fmt::format("Rate limit reached for this key: {} requests per minute.", key.requests_per_minute)),
              answer.retry_after_s};
    case LimitAnswer::kTokens:
      denials.with({"tokens"}).add();
      return {error(Kind::kRateLimit, fmt::format("Rate limit reached for this key: {} tokens per minute, the request "
                                                  "needs {}.",
                                                  key.tokens_per_minute, need.prompt_tokens)),
              answer.retry_after_s};
    case LimitAnswer::kTokensNever:
      denials.with({"tokens"}).add();
      return {error(Kind::kRateLimit, fmt::format("Request too large for this key: limit {} tokens per minute, the "
                                                  "prompt has about {}.",
                                                  key.tokens_per_minute, need.prompt_tokens)),
              std::nullopt};
    case LimitAnswer::kBudgetInUse:
      denials.with({"budget"}).add();
      return {error(Kind::kRateLimit, "What is left of this key's budget is reserved by requests under way."),
              answer.retry_after_s};
    case LimitAnswer::kBudget:
    case LimitAnswer::kAdmitted:
      break;
  }
  denials.with({"budget"}).add();
  return {error(Kind::kInsufficientBalance, "The budget of this key is spent.", "insufficient_quota"), std::nullopt};
}

}  // namespace

size_t TenantLedger::DigestHash::operator()(const KeyDigest& digest) const {
  size_t hash;
  std::memcpy(&hash, digest.data(), sizeof hash);
  return hash;
}

TenantLedger::TenantLedger(std::unique_ptr<TenantStore> store, std::shared_ptr<SharedLimits> shared,
                           LedgerOptions options)
    : store_(std::move(store)), shared_(std::move(shared)), options_(std::move(options)) {
  if (!options_.clock) options_.clock = std::make_shared<SteadyClock>();
  if (!options_.unix_s) options_.unix_s = system_unix_s;
}

Result<std::unique_ptr<TenantLedger>> TenantLedger::open(std::unique_ptr<TenantStore> store,
                                                         std::shared_ptr<SharedLimits> shared, LedgerOptions options) {
  std::unique_ptr<TenantLedger> ledger(new TenantLedger(std::move(store), std::move(shared), std::move(options)));
  if (ledger->options_.pepper.empty()) {
    SW_ASSIGN(ledger->options_.pepper, ledger->store_->salt());
  }
  SW_TRY(ledger->load());
  ledger->writer_ = std::thread([self = ledger.get()] { self->work(); });
  return ledger;
}

TenantLedger::~TenantLedger() {
  {
    std::lock_guard lock(pending_mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (writer_.joinable()) writer_.join();
  if (!flush()) SW_ERROR("tenants: usage of the last moments could not be written and is lost");
}

Status TenantLedger::load() {
  SW_ASSIGN(const int64_t version, store_->version());
  SW_ASSIGN(const std::vector<KeyRecord> records, store_->keys());
  SW_ASSIGN(const UsageTable usage, store_->usage("", INT64_MIN));
  std::unique_lock lock(keys_mutex_);
  for (const KeyRecord& record : records) put(record, usage);
  version_ = version;
  return {};
}

// keys_mutex_ is held.
void TenantLedger::put(const KeyRecord& record, const UsageTable& usage) {
  auto key = std::make_shared<Key>();
  key->record = record;
  const int64_t period = period_number(record.budget_period, unix_now());
  const auto known = by_id_.find(record.id);
  if (known != by_id_.end()) {
    key->limits = known->second->limits;
    by_digest_.erase(known->second->record.digest);
  } else {
    const int64_t first_day = first_day_of(record.budget_period, period);
    int64_t spent = 0;
    for (auto row = usage.lower_bound({record.id, INT64_MIN, ""}); row != usage.end() && row->first.key_id == record.id;
         ++row) {
      if (row->first.day >= first_day) spent += row->second.nanodollars;
    }
    key->limits = std::make_shared<Limits>();
    key->limits->state.set_spent(period, spent);
  }
  by_id_[record.id] = key;
  by_digest_[record.digest] = key;
}

std::shared_ptr<TenantLedger::Key> TenantLedger::find(const std::string& id) const {
  std::shared_lock lock(keys_mutex_);
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

int64_t TenantLedger::now_s() const {
  return std::chrono::duration_cast<std::chrono::seconds>(options_.clock->now().time_since_epoch()).count();
}

api::Parsed<Caller> TenantLedger::authenticate(std::string_view presented) const {
  const KeyDigest digest = key_digest(presented, options_.pepper);
  std::shared_ptr<Key> key;
  {
    std::shared_lock lock(keys_mutex_);
    const auto found = by_digest_.find(digest);
    if (found != by_digest_.end() && same_digest(found->second->record.digest, digest)) key = found->second;
  }
  const bool good =
      key && !key->record.revoked && (key->record.expires_unix_s == 0 || unix_now() < key->record.expires_unix_s);
  if (!good) return error(api::ErrorKind::kAuthentication, "Incorrect API key provided.", "invalid_api_key");
  return Caller{key->record.id, key->record.tenant, key->record.priority, key->record.models};
}

LimitQuery TenantLedger::query_of(const KeyRecord& record, const Need& need) const {
  LimitQuery query;
  query.key_id = record.id;
  query.requests_per_minute = record.requests_per_minute;
  query.tokens_per_minute = record.tokens_per_minute;
  query.budget_nanodollars = record.budget_nanodollars;
  query.period = period_number(record.budget_period, unix_now());
  query.prompt_tokens = need.prompt_tokens;
  query.output_tokens = need.output_tokens;
  query.prompt_nanodollars = nanodollars(need.prompt_tokens, need.price.input);
  query.need_nanodollars = query.prompt_nanodollars + nanodollars(need.output_tokens, need.price.output);
  return query;
}

void TenantLedger::reserve(const Caller& caller, const Need& need, ReserveDone done) {
  const std::shared_ptr<Key> key = find(caller.key_id);
  if (!key || key->record.revoked) {
    done({std::nullopt,
          Denial{error(api::ErrorKind::kAuthentication, "This API key was revoked.", "invalid_api_key"), {}},
          {}});
    return;
  }
  if (!caller.may_use(need.model, need.alias)) {
    denials.with({"model"}).add();
    done({std::nullopt,
          Denial{error(api::ErrorKind::kPermission, fmt::format("This key may not use the model {}.", need.model)), {}},
          {}});
    return;
  }
  const auto locally = [this, key, need](const ReserveDone& then) {
    std::unique_lock lock(key->limits->mutex);
    const LimitAnswer answer = key->limits->state.reserve(query_of(key->record, need), now_s());
    lock.unlock();
    then(admission(key->record, need, answer, false));
  };
  if (!shared_) {
    locally(done);
    return;
  }
  shared_->reserve(query_of(key->record, need), [this, key, need, locally, done = std::move(done)](auto answer) {
    if (answer) return done(admission(key->record, need, *answer, true));
    store_failures->add();
    if (options_.fail_open) return locally(done);
    denials.with({"store"}).add();
    done({std::nullopt,
          Denial{error(api::ErrorKind::kOverloaded, "The limits of this key cannot be checked now."), 1.0},
          {}});
  });
}

Admission TenantLedger::admission(const KeyRecord& record, const Need& need, const LimitAnswer& answer, bool shared) {
  RateLimits limits;
  limits.requests = {record.requests_per_minute, answer.requests_used, answer.requests_reset_s};
  limits.tokens = {record.tokens_per_minute, answer.tokens_used, answer.tokens_reset_s};
  if (answer.verdict != LimitAnswer::kAdmitted) return {std::nullopt, denial(record, need, answer), limits};
  Reservation reservation;
  reservation.tenants_ = this;
  reservation.key_id_ = record.id;
  reservation.model_ = need.model;
  reservation.tokens_ = answer.tokens;
  reservation.cost_nanodollars_ = answer.nanodollars;
  reservation.slot_ = answer.slot;
  reservation.shared_ = shared;
  return {std::move(reservation), std::nullopt, limits};
}

void TenantLedger::finish(Reservation& reservation, const LimitOutcome& outcome) {
  if (reservation.shared_) {
    shared_->settle(outcome);
    return;
  }
  if (const std::shared_ptr<Key> key = find(reservation.key_id_)) {
    std::lock_guard lock(key->limits->mutex);
    key->limits->state.settle(outcome, now_s());
  }
}

void TenantLedger::settle(Reservation& reservation, const TokenUsage& usage, const Price& price) {
  const std::shared_ptr<Key> key = find(reservation.key_id_);
  const int64_t cost = nanodollars(usage.prompt_tokens - usage.cached_tokens, price.input) +
                       nanodollars(usage.cached_tokens, price.cached_input) +
                       nanodollars(usage.output_tokens, price.output);
  LimitOutcome outcome;
  outcome.key_id = reservation.key_id_;
  outcome.slot = reservation.slot_;
  outcome.period = key ? period_number(key->record.budget_period, unix_now()) : 0;
  outcome.tokens_reserved = reservation.tokens_;
  outcome.tokens_used = usage.prompt_tokens + usage.output_tokens;
  outcome.nanodollars_reserved = reservation.cost_nanodollars_;
  outcome.nanodollars_used = cost;
  finish(reservation, outcome);
  book(reservation, usage, cost);
}

void TenantLedger::refund(Reservation& reservation) {
  LimitOutcome outcome;
  outcome.key_id = reservation.key_id_;
  outcome.slot = reservation.slot_;
  outcome.period = INT64_MIN;
  outcome.tokens_reserved = reservation.tokens_;
  outcome.nanodollars_reserved = reservation.cost_nanodollars_;
  outcome.request_counts = false;
  finish(reservation, outcome);
}

void TenantLedger::book(const Reservation& reservation, const TokenUsage& usage, int64_t cost) {
  const int64_t day = period_number(BudgetPeriod::kDay, unix_now());
  std::lock_guard lock(pending_mutex_);
  pending_[{reservation.key_id_, day, reservation.model_}] +=
      {1, usage.prompt_tokens, usage.cached_tokens, usage.output_tokens, cost};
  usage_pending->set(static_cast<double>(pending_.size()));
}

bool TenantLedger::flush() {
  std::lock_guard one(flush_mutex_);
  UsageTable batch;
  {
    std::lock_guard lock(pending_mutex_);
    batch.swap(pending_);
  }
  if (batch.empty()) return true;
  const Status written = store_->add_usage(batch);
  std::lock_guard lock(pending_mutex_);
  if (!written.ok()) {
    store_failures->add();
    for (const auto& [of, sum] : batch) pending_[of] += sum;
  }
  usage_pending->set(static_cast<double>(pending_.size()));
  return written.ok();
}

Status TenantLedger::refresh() {
  SW_ASSIGN(const int64_t version, store_->version());
  {
    std::shared_lock lock(keys_mutex_);
    if (version == version_) return {};
  }
  return load();
}

void TenantLedger::work() {
  TimePoint refresh_at = std::chrono::steady_clock::now() + options_.refresh_interval;
  bool warned = false;
  std::unique_lock lock(pending_mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, options_.flush_interval, [&] { return stopping_; });
    lock.unlock();
    Status fine;
    if (!flush()) fine = Error{ErrorCode::kUnavailable, "usage could not be written"};
    if (std::chrono::steady_clock::now() >= refresh_at) {
      refresh_at = std::chrono::steady_clock::now() + options_.refresh_interval;
      if (fine.ok()) fine = refresh();
    }
    if (!fine.ok() && !warned) SW_WARN("tenants: {}; trying again", fine.error().message);
    warned = !fine.ok();
    lock.lock();
  }
}

Result<TenantLedger::Created> TenantLedger::create(KeyRecord wanted, const std::string& actor) {
  Created created;
  SW_ASSIGN(created.key, make_virtual_key());
  SW_ASSIGN(wanted.id, make_key_id());
  wanted.digest = key_digest(created.key, options_.pepper);
  wanted.created_unix_s = unix_now();
  SW_TRY(store_->put_key(wanted, {unix_now(), actor, "key.create", wanted.id, describe_change({}, wanted)}));
  {
    std::unique_lock lock(keys_mutex_);
    put(wanted, {});
  }
  created.record = std::move(wanted);
  return created;
}

Result<KeyRecord> TenantLedger::update(const std::string& id, const std::string& action, const std::string& actor,
                                       const std::function<void(KeyRecord&)>& change) {
  const std::shared_ptr<Key> key = find(id);
  if (!key) return not_found(fmt::format("no key {}", id));
  KeyRecord record = key->record;
  change(record);
  SW_TRY(store_->put_key(record, {unix_now(), actor, action, id, describe_change(key->record, record)}));
  std::unique_lock lock(keys_mutex_);
  put(record, {});
  return record;
}

std::vector<KeyRecord> TenantLedger::keys() const {
  std::vector<KeyRecord> records;
  std::shared_lock lock(keys_mutex_);
  for (const auto& [id, key] : by_id_) records.push_back(key->record);
  lock.unlock();
  std::sort(records.begin(), records.end(), [](const KeyRecord& a, const KeyRecord& b) {
    return std::tie(a.created_unix_s, a.id) < std::tie(b.created_unix_s, b.id);
  });
  return records;
}

Result<UsageTable> TenantLedger::usage(const std::string& key_id, int64_t first_day) {
  if (!flush()) return Error{ErrorCode::kUnavailable, "tenant store: cannot be written now"};
  return store_->usage(key_id, first_day);
}

Result<std::vector<AuditEntry>> TenantLedger::audit(int limit) { return store_->audit(limit); }

}  // namespace spillway::gateway
