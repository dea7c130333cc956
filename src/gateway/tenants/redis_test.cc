// Limits and keys shared through a real Redis, started for the test on a port of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <thread>

#include "gateway/tenants/redis_limits.h"
#include "gateway/tenants/redis_store.h"
#include "gateway/tenants/tenants_fixture_for_test.h"

namespace spillway::gateway {
namespace {

class Redis {
 public:
  explicit Redis(int port) : port_(port) { start(); }
  ~Redis() { stop(); }

  void start() {
    child_ = ::fork();
    if (child_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::execlp("redis-server", "redis-server", "--port", std::to_string(port_).c_str(), "--bind", "127.0.0.1", "--save",
               "", "--appendonly", "no", "--logfile", folder_.file("log").c_str(), "--dir", folder_.path.c_str(),
               nullptr);
      ::_exit(127);
    }
    RedisConnection probe(options());
    for (int i = 0; i < 200 && !probe.run(RedisConnection::Command{"PING"}).ok(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  void stop() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
    child_ = -1;
  }
  void pause(bool paused) { ::kill(child_, paused ? SIGSTOP : SIGCONT); }
  bool installed() const { return std::system("command -v redis-server >/dev/null 2>&1") == 0; }

  RedisOptions options() const {
    RedisOptions options;
    options.port = port_;
    return options;
  }

 private:
  TemporaryFolder folder_;
  const int port_;
  pid_t child_ = -1;
};

// Settlements travel on their own; what they change is seen a moment later.
bool soon(const std::function<bool()>& holds) {
  for (int i = 0; i < 200; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

class RedisTenants : public testing::Test {
 protected:
  void SetUp() override {
    if (!redis_.installed()) GTEST_SKIP() << "redis-server is not installed";
  }

  std::unique_ptr<TenantLedger> gateway(bool fail_open = false) {
    LedgerOptions options = fixture_.options();
    options.fail_open = fail_open;
    auto ledger = TenantLedger::open(make_redis_store(redis_.options()), make_redis_limits(redis_.options()), options);
    EXPECT_TRUE(ledger.ok()) << (ledger.ok() ? "" : ledger.error().message);
    return ledger.ok() ? std::move(*ledger) : nullptr;
  }

  KeyRecord limited(int64_t tokens, int64_t requests = 0, double dollars = 0) {
    KeyRecord record;
    record.tenant = "acme";
    record.models = {"m"};
    record.tokens_per_minute = tokens;
    record.requests_per_minute = requests;
    record.budget_nanodollars = static_cast<int64_t>(dollars * 1e9);
    return record;
  }

  LedgerFixture fixture_;
  Redis redis_{20000 + ::getpid() % 20000};
};

TEST_F(RedisTenants, TwoGatewaysShareKeysAndLimits) {
  auto a = gateway(), b = gateway();
  const auto created = a->create(limited(1000, 3), "test").value();
  ASSERT_TRUE(b->refresh().ok());
  const auto caller = b->authenticate(created.key).value();
  EXPECT_EQ(caller.models, std::vector<std::string>{"m"});
  Admission first = reserve(*a, caller, 100, 500);
  ASSERT_TRUE(first.reservation);
  EXPECT_EQ(first.reservation->tokens(), 600);
  EXPECT_EQ(first.limits.requests.left(), 2);
  EXPECT_EQ(first.limits.tokens.left(), 400);
  EXPECT_EQ(first.limits.tokens.reset_s, 60);
  Admission second = reserve(*b, caller, 100, 500);
  EXPECT_EQ(second.reservation->tokens(), 400);
  const Admission third = reserve(*a, caller, 1, 1);
  EXPECT_EQ(third.denial->error.http_status(), 429);
  EXPECT_EQ(third.limits.requests.left(), 1);
  EXPECT_EQ(third.limits.tokens.left(), 0);
  EXPECT_GE(third.denial->retry_after_s.value(), 59);
  first.reservation->settle({100, 0, 100}, {});  // 400 come back
  second.reservation->refund();                  // 400 and a request
  EXPECT_TRUE(soon([&] {
    const Admission all = reserve(*a, caller, 100, 5000);
    return all.reservation && all.reservation->tokens() == 800;
  }));
  EXPECT_EQ(reserve(*a, caller, 1000, 1).denial->retry_after_s, std::nullopt);
}

TEST_F(RedisTenants, ConcurrentGatewaysOvershootByNoMoreThanOneReservation) {
  auto a = gateway(), b = gateway();
  const auto created = a->create(limited(2000), "test").value();
  ASSERT_TRUE(b->refresh().ok());
  const auto caller = a->authenticate(created.key).value();
  std::atomic<int64_t> used{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        Admission admission = reserve(t % 2 ? *a : *b, caller, 50, 150);
        if (!admission.reservation) continue;
        used += 200;
        admission.reservation->settle({50, 0, 150}, {});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GE(used, 1800);
  EXPECT_LE(used, 2200);
}

TEST_F(RedisTenants, BudgetsAndUsageAreShared) {
  auto a = gateway(), b = gateway();
  const auto created = a->create(limited(0, 0, 1.0), "test").value();
  ASSERT_TRUE(b->refresh().ok());
  const auto caller = a->authenticate(created.key).value();
  const Price price{100, 100, 10};
  Admission held = reserve(*a, caller, 1000, 8000, price);  // 0.9 of it
  EXPECT_EQ(reserve(*b, caller, 2000, 1, price).denial->error.http_status(), 429);
  held.reservation->settle({1000, 0, 8500}, price);
  EXPECT_TRUE(soon([&] { return reserve(*b, caller, 2000, 1, price).denial->error.http_status() == 402; }));
  reserve(*b, caller, 100, 100, price).reservation->settle({100, 0, 100}, price);
  const auto usage = [&] {
    EXPECT_TRUE(a->flush());
    return b->usage(caller.key_id, 0).value();
  }();
  ASSERT_EQ(usage.size(), 1u);
  EXPECT_EQ(usage.begin()->second.requests, 2);
  EXPECT_EQ(usage.begin()->second.nanodollars, 970'000'000);
  EXPECT_EQ(b->audit(10).value().front().action, "key.create");
}

TEST_F(RedisTenants, ADeadRedisIsOpenOrClosedAsDeclared) {
  auto closed = gateway(false), open = gateway(true);
  const auto created = closed->create(limited(1000), "test").value();
  ASSERT_TRUE(open->refresh().ok());
  const auto caller = closed->authenticate(created.key).value();
  Admission before = reserve(*closed, caller, 100, 300);
  ASSERT_TRUE(before.reservation);
  redis_.stop();
  const Admission refused = reserve(*closed, caller, 100, 100);
  EXPECT_EQ(refused.denial->error.http_status(), 503);
  EXPECT_TRUE(refused.denial->retry_after_s);
  // Open: each gateway counts alone, so that what is overspent is bounded by one limit a gateway.
  Admission alone = reserve(*open, caller, 100, 2000);
  ASSERT_TRUE(alone.reservation);
  EXPECT_EQ(alone.reservation->tokens(), 1000);
  EXPECT_EQ(reserve(*open, caller, 100, 100).denial->error.http_status(), 429);
  alone.reservation->refund();
  before.reservation->refund();  // kept until it can be told
  redis_.start();
  Admission back;
  for (int i = 0; i < 100 && !back.reservation; ++i) {
    back = reserve(*closed, caller, 100, 100);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(back.reservation);
}

TEST_F(RedisTenants, AHangingRedisDelaysNobodyForLong) {
  auto closed = gateway(false);
  const auto caller = closed->authenticate(closed->create(limited(1000), "test").value().key).value();
  redis_.pause(true);
  std::vector<std::thread> threads;
  std::atomic<int> refused{0};
  for (int t = 0; t < 20; ++t) {
    threads.emplace_back([&] { refused += reserve(*closed, caller, 10, 10).denial.has_value(); });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(refused, 20);
  redis_.pause(false);
}

TEST_F(RedisTenants, UserAndDatabaseAreTheConnections) {
  const auto run = [](RedisConnection& connection, const RedisConnection::Command& command) {
    const auto reply = connection.run(command);
    EXPECT_TRUE(reply.ok()) << reply.error().message;
    return reply.ok() && (*reply)->str != nullptr ? std::string((*reply)->str, (*reply)->len) : std::string();
  };
  RedisConnection first(redis_.options());
  run(first, {"ACL", "SETUSER", "spill", "on", ">pass word", "~*", "&*", "+@all"});
  RedisOptions options = redis_.options();
  options.user = "spill";
  options.password = "pass word";
  options.database = 3;
  RedisConnection named(options);
  run(named, {"SET", "where", "three"});
  EXPECT_EQ(run(named, {"ACL", "WHOAMI"}), "spill");
  EXPECT_EQ(run(named, {"GET", "where"}), "three");
  EXPECT_EQ(run(first, {"GET", "where"}), "");
  options.password = "wrong";
  RedisConnection refused(options);
  EXPECT_THAT(refused.run(RedisConnection::Command{"PING"}).error().message, testing::HasSubstr("WRONGPASS"));
}

TEST(RedisUrl, Parses) {
  const auto options = parse_redis_url("redis://:pa:ss@db.example:6380").value();
  EXPECT_EQ(options.host, "db.example");
  EXPECT_EQ(options.port, 6380);
  EXPECT_EQ(options.password, "pa:ss");
  EXPECT_EQ(parse_redis_url("redis://h").value().port, 6379);
  EXPECT_EQ(parse_redis_url("redis://h/").value().database, 0);
  const auto whole = parse_redis_url("redis://spill:pass@[::1]:6380/3").value();
  EXPECT_EQ(whole.host, "::1");
  EXPECT_EQ(whole.user, "spill");
  EXPECT_EQ(whole.port, 6380);
  EXPECT_EQ(whole.database, 3);
  for (const char* bad : {"h:1", "redis://", "redis://h:0", "redis://h:x", "redis://user@h", "redis://:1",
                          "redis://h/x", "redis://h/-1", "redis://[::1", "redis://[::1]x"})
    EXPECT_FALSE(parse_redis_url(bad).ok()) << bad;
  EXPECT_THAT(parse_redis_url("redis://:sesame@h:x").error().message, testing::Not(testing::HasSubstr("sesame")));
}

}  // namespace
}  // namespace spillway::gateway
