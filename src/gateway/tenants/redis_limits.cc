#include "gateway/tenants/redis_limits.h"

#include <fmt/format.h>
#include <hiredis/hiredis.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "gateway/tenants/virtual_key.h"

namespace spillway::gateway {
namespace {

constexpr size_t kBatchMax = 256;
constexpr size_t kWaitingMax = 1 << 16;

// One hash a key: fields t<second>, r<second> (tokens, requests of that second), b<minute> (nanodollars reserved in
// that minute by requests under way; those of a gateway that died are forgotten after an hour), p (period), s (spent in
// it).
constexpr const char* kShared = R"(
local now = tonumber(redis.call('TIME')[1])
local period = tonumber(ARGV[1])
local key = KEYS[1]
local tokens, requests, reserved, spent, known = 0, 0, 0, 0, -9e15
local by_second_t, by_second_r = {}, {}
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local kind, at, amount = string.sub(fields[i], 1, 1), tonumber(string.sub(fields[i], 2)), tonumber(fields[i + 1])
  if kind == 'p' then known = amount
  elseif kind == 's' then spent = amount
  elseif kind == 'b' then
    if at <= math.floor(now / 60) - 60 then redis.call('HDEL', key, fields[i]) else reserved = reserved + amount end
  elseif at <= now - 60 then redis.call('HDEL', key, fields[i])
  elseif kind == 't' then tokens = tokens + amount; by_second_t[at] = amount
  else requests = requests + amount; by_second_r[at] = amount end
end
if period > known then
  redis.call('HSET', key, 'p', ARGV[1], 's', '0')
  spent = 0
end
)";

constexpr const char* kReserve = R"(
local rpm, tpm, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local prompt, output = tonumber(ARGV[5]), tonumber(ARGV[6])
local prompt_usd, need_usd = tonumber(ARGV[7]), tonumber(ARGV[8])
local function reset(by_second)
  for age = 0, 59 do
    if (by_second[now - age] or 0) > 0 then return 60 - age end
  end
  return 0
end
local function answer(verdict, take, usd, after)
  return {verdict, take, usd, now, after, requests, tokens, reset(by_second_r), reset(by_second_t)}
end
local function seconds_until(by_second, sum, below)
  for age = 59, 0, -1 do
    sum = sum - (by_second[now - age] or 0)
    if sum < below then return 60 - age end
  end
  return 60
end
if rpm > 0 and requests >= rpm then return answer(1, 0, 0, seconds_until(by_second_r, requests, rpm)) end
local take = prompt + output
if tpm > 0 then
  local room = tpm - tokens
  if prompt >= room then
    if prompt >= tpm then return answer(3, 0, 0, 0) end
    return answer(2, 0, 0, seconds_until(by_second_t, tokens, tpm - prompt))
  end
  take = math.min(take, room)
end
local usd = need_usd
if budget > 0 then
  local unspent = budget - spent
  local room = unspent - reserved
  if room <= 0 or prompt_usd > room then
    if unspent <= 0 or prompt_usd > unspent then return answer(4, 0, 0, 1) end
    return answer(5, 0, 0, 1)
  end
  usd = math.min(usd, room)
end
redis.call('HINCRBY', key, 'r' .. now, 1)
redis.call('HINCRBY', key, 't' .. now, string.format('%.0f', take))
redis.call('HINCRBY', key, 'b' .. math.floor(now / 60), string.format('%.0f', usd))
requests, tokens = requests + 1, tokens + take
by_second_r[now], by_second_t[now] = (by_second_r[now] or 0) + 1, (by_second_t[now] or 0) + take
return answer(0, take, usd, 0)
)";

// A settlement that had no answer is sent again; the second key remembers for an hour that it was applied.
constexpr const char* kSettle = R"(
if not redis.call('SET', KEYS[2], '1', 'NX', 'EX', 3600) then return 0 end
local slot, refunded = tonumber(ARGV[2]), ARGV[5] == '1'
if slot > now - 60 then
  redis.call('HINCRBY', key, 't' .. ARGV[2], ARGV[3])
  if refunded then redis.call('HINCRBY', key, 'r' .. ARGV[2], -1) end
end
local minute = math.floor(slot / 60)
if ARGV[4] ~= '0' and minute > math.floor(now / 60) - 60 then redis.call('HINCRBY', key, 'b' .. minute, '-' .. ARGV[4]) end
if ARGV[6] ~= '0' then redis.call('HINCRBY', key, 's', ARGV[6]) end
return 0
)";

std::string number(int64_t value) { return std::to_string(value); }

LimitAnswer::Verdict verdict_of(int64_t code) {
  constexpr LimitAnswer::Verdict kVerdicts[] = {LimitAnswer::kAdmitted, LimitAnswer::kRequests,
                                                LimitAnswer::kTokens,   LimitAnswer::kTokensNever,
                                                LimitAnswer::kBudget,   LimitAnswer::kBudgetInUse};
  return code >= 0 && code < 6 ? kVerdicts[code] : LimitAnswer::kRequests;
}

class RedisLimits final : public SharedLimits {
 public:
  explicit RedisLimits(RedisOptions options) : connection_(std::move(options)), thread_([this] { work(); }) {}

  ~RedisLimits() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void reserve(LimitQuery query, std::function<void(std::optional<LimitAnswer>)> done) override {
    const auto& q = query;
    Job job{
        {"EVAL", std::string(kShared) + kReserve, "1", key_of(q.key_id), number(q.period),
         number(q.requests_per_minute), number(q.tokens_per_minute), number(q.budget_nanodollars),
         number(q.prompt_tokens), number(q.output_tokens), number(q.prompt_nanodollars), number(q.need_nanodollars)},
        std::move(done)};
    std::unique_lock lock(mutex_);
    const bool full = reservations_.size() >= kWaitingMax || stopping_;
    if (!full) reservations_.push_back(std::move(job));
    lock.unlock();
    if (full) job.done(std::nullopt);
    wake_.notify_one();
  }

  void settle(LimitOutcome outcome) override {
    const auto& o = outcome;
    Job job{{"EVAL", std::string(kShared) + kSettle, "2", key_of(o.key_id), next_settlement(),
             number(o.request_counts ? o.period : -9'000'000'000), number(o.slot),
             number(o.tokens_used - o.tokens_reserved), number(o.nanodollars_reserved), o.request_counts ? "0" : "1",
             number(o.nanodollars_used)},
            nullptr};
    {
      std::lock_guard lock(mutex_);
      if (settlements_.size() < kWaitingMax) settlements_.push_back(std::move(job));
    }
    wake_.notify_one();
  }

 private:
  struct Job {
    RedisConnection::Command command;
    std::function<void(std::optional<LimitAnswer>)> done;
  };

  // Unique over all gateways.
  std::string next_settlement() {
    return fmt::format("{}:settled:{}:{}", connection_.options().prefix, origin_, settlements_made_++);
  }

  std::string key_of(const std::string& key_id) const { return connection_.options().prefix + ":limits:" + key_id; }

  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || !reservations_.empty() || !settlements_.empty(); });
      if (stopping_ && reservations_.empty() && settlements_.empty()) return;
      // Settlements first: what they give back may admit the reservations.
      std::vector<Job> batch;
      const size_t settled = std::min(settlements_.size(), kBatchMax);
      for (std::deque<Job>* jobs : {&settlements_, &reservations_}) {
        while (!jobs->empty() && batch.size() < kBatchMax) {
          batch.push_back(std::move(jobs->front()));
          jobs->pop_front();
        }
      }
      lock.unlock();
      const bool sent = send(batch);
      lock.lock();
      if (sent) continue;
      // Settlements wait for Redis to come back; at the end there is no waiting any more.
      if (stopping_) return;
      for (size_t i = settled; i-- > 0;) settlements_.push_front(std::move(batch[i]));
      wake_.wait_for(lock, std::chrono::milliseconds(100), [&] { return stopping_ || !reservations_.empty(); });
    }
  }

  bool send(std::vector<Job>& batch) {
    std::vector<RedisConnection::Command> commands;
    for (const Job& job : batch) commands.push_back(job.command);
    const auto replies = connection_.run(commands);
    if (replies.ok() == down_) {
      down_ = !replies.ok();
      if (down_)
        SW_WARN("tenants: {}", replies.error().message);
      else
        SW_INFO("tenants: redis answers again");
    }
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!batch[i].done) continue;
      batch[i].done(replies.ok() ? answer_of(*(*replies)[i]) : std::nullopt);
    }
    return replies.ok();
  }

  static std::optional<LimitAnswer> answer_of(const redisReply& reply) {
    if (reply.type != REDIS_REPLY_ARRAY || reply.elements != 9) {
      SW_WARN("tenants: redis: expected nine numbers, found {}",
              reply.type == REDIS_REPLY_ERROR ? std::string_view(reply.str, reply.len) : "something else");
      return std::nullopt;
    }
    LimitAnswer answer;
    answer.verdict = verdict_of(reply.element[0]->integer);
    answer.tokens = reply.element[1]->integer;
    answer.nanodollars = reply.element[2]->integer;
    answer.slot = reply.element[3]->integer;
    answer.retry_after_s = static_cast<double>(reply.element[4]->integer);
    answer.requests_used = reply.element[5]->integer;
    answer.tokens_used = reply.element[6]->integer;
    answer.requests_reset_s = reply.element[7]->integer;
    answer.tokens_reset_s = reply.element[8]->integer;
    return answer;
  }

  RedisConnection connection_;                        // the thread's
  bool down_ = false;                                 // the thread's
  const std::string origin_ = make_key_id().value();  // random
  std::atomic<uint64_t> settlements_made_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> reservations_, settlements_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

std::unique_ptr<SharedLimits> make_redis_limits(RedisOptions options) {
  return std::make_unique<RedisLimits>(std::move(options));
}

}  // namespace spillway::gateway
