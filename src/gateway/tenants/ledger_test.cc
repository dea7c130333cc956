// Virtual keys, limits and usage.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include <fstream>
#include <thread>

#include "gateway/tenants/tenants_fixture_for_test.h"

namespace spillway::gateway {
namespace {

using testing::HasSubstr;

KeyRecord limited(int64_t tokens_per_minute, int64_t requests_per_minute = 0) {
  KeyRecord record;
  record.tenant = "acme";
  record.tokens_per_minute = tokens_per_minute;
  record.requests_per_minute = requests_per_minute;
  return record;
}

TEST(VirtualKey, AreLongRandomAndKeptAsDigests) {
  const std::string a = make_virtual_key().value(), b = make_virtual_key().value();
  EXPECT_NE(a, b);
  EXPECT_EQ(a.size(), 49u);
  EXPECT_TRUE(a.starts_with("sk-sw-"));
  EXPECT_TRUE(same_digest(key_digest(a, "p"), key_digest(a, "p")));
  EXPECT_FALSE(same_digest(key_digest(a, "p"), key_digest(b, "p")));
  EXPECT_FALSE(same_digest(key_digest(a, "p"), key_digest(a, "q")));
}

TEST(VirtualKey, PeriodsOfBudgets) {
  const int64_t moment = 1'764'000'000;  // 24 November 2025
  EXPECT_EQ(period_number(BudgetPeriod::kTotal, moment), 0);
  EXPECT_EQ(period_number(BudgetPeriod::kDay, moment), moment / 86400);
  EXPECT_EQ(period_number(BudgetPeriod::kMonth, moment), 2025 * 12 + 10);
  EXPECT_EQ(first_day_of(BudgetPeriod::kMonth, 2025 * 12 + 10), 20393);  // 1 November 2025
  EXPECT_EQ(period_number(BudgetPeriod::kMonth, 20393 * 86400 - 1), 2025 * 12 + 9);
}

TEST(SlidingWindow, ForgetsBySecond) {
  SlidingWindow window;
  window.add(100, 5, 100);
  window.add(110, 7, 110);
  EXPECT_EQ(window.sum(159), 12);
  EXPECT_EQ(window.sum(160), 7);
  EXPECT_EQ(window.seconds_until(7, 160), 10);
  EXPECT_EQ(window.sum(170), 0);
  window.add(105, 100, 170);  // long past
  EXPECT_EQ(window.sum(170), 0);
  EXPECT_EQ(window.sum(100), 0);  // a clock that went back
  window.add(10'000, 3, 10'000);
  EXPECT_EQ(window.sum(10'000), 3);
}

TEST(Ledger, KnowsItsKeysAndNobodyElse) {
  LedgerFixture fixture;
  KeyRecord record = limited(0);
  record.priority = 7;
  record.models = {"qwen", "deepseek-*"};
  record.expires_unix_s = fixture.unix_s->load() + 100;
  const auto created = fixture.create(record);
  const auto caller = fixture.ledger->authenticate(created.key);
  ASSERT_TRUE(caller.ok());
  EXPECT_EQ(caller->key_id, created.record.id);
  EXPECT_EQ(caller->tenant, "acme");
  EXPECT_EQ(caller->priority, 7);
  EXPECT_TRUE(caller->may_use("deepseek-r1"));
  EXPECT_FALSE(caller->may_use("qwen2"));
  EXPECT_EQ(fixture.ledger->authenticate(created.key + "x").error().kind, api::ErrorKind::kAuthentication);
  EXPECT_FALSE(fixture.ledger->authenticate("").ok());
  EXPECT_EQ(reserve(*fixture.ledger, *caller, 1, 1, {}, "llama").denial->error.kind, api::ErrorKind::kPermission);
  fixture.open();  // a restart
  EXPECT_TRUE(fixture.ledger->authenticate(created.key).ok());
  *fixture.unix_s += 100;
  EXPECT_FALSE(fixture.ledger->authenticate(created.key).ok());  // expired
}

TEST(Ledger, NothingInTheFileOpensTheDoor) {
  LedgerFixture fixture;
  const auto created = fixture.create(limited(0));
  fixture.ledger.reset();
  for (const auto& entry : std::filesystem::directory_iterator(fixture.folder.path)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(bytes.find(created.key.substr(6)), std::string::npos);
    EXPECT_EQ(std::filesystem::status(entry.path()).permissions() & std::filesystem::perms::others_read,
              std::filesystem::perms::none);
  }
}

TEST(Ledger, ReservesAndGivesBackWhatWasNotUsed) {
  LedgerFixture fixture;
  const auto caller = fixture.ledger->authenticate(fixture.create(limited(1000)).key).value();
  Admission first = reserve(*fixture.ledger, caller, 200, 800);
  ASSERT_TRUE(first.reservation);
  EXPECT_EQ(first.reservation->tokens(), 1000);
  Admission refused = reserve(*fixture.ledger, caller, 100, 10);
  ASSERT_TRUE(refused.denial);
  EXPECT_EQ(refused.denial->error.http_status(), 429);
  EXPECT_EQ(refused.denial->retry_after_s.value(), 60);
  first.reservation->settle({200, 0, 100}, {});
  Admission second = reserve(*fixture.ledger, caller, 100, 800);
  ASSERT_TRUE(second.reservation);
  EXPECT_EQ(second.reservation->tokens(), 700);  // all that is left
  second.reservation.reset();                    // destroyed unsettled: refunded
  EXPECT_EQ(reserve(*fixture.ledger, caller, 100, 800).reservation->tokens(), 700);
  fixture.clock->advance(std::chrono::seconds(60));
  EXPECT_EQ(reserve(*fixture.ledger, caller, 100, 2000).reservation->tokens(), 1000);
}

TEST(Ledger, TellsWhatIsLeftOfTheMinute) {
  LedgerFixture fixture;
  KeyRecord record = limited(1000);
  record.requests_per_minute = 2;
  const auto caller = fixture.ledger->authenticate(fixture.create(record).key).value();
  Admission first = reserve(*fixture.ledger, caller, 100, 300);
  EXPECT_EQ(first.limits.requests.limit, 2);
  EXPECT_EQ(first.limits.requests.left(), 1);
  EXPECT_EQ(first.limits.tokens.left(), 600);
  EXPECT_EQ(first.limits.tokens.reset_s, 60);
  first.reservation->settle({100, 0, 50}, {});
  fixture.clock->advance(std::chrono::seconds(10));
  const Admission second = reserve(*fixture.ledger, caller, 100, 100);
  EXPECT_EQ(second.limits.requests.left(), 0);
  EXPECT_EQ(second.limits.tokens.left(), 650);
  fixture.clock->advance(std::chrono::seconds(10));
  const Admission third = reserve(*fixture.ledger, caller, 1, 1);
  ASSERT_TRUE(third.denial);
  EXPECT_EQ(third.limits.requests.left(), 0);
  EXPECT_EQ(third.limits.requests.reset_s, 50) << "since the newest of them";
  EXPECT_EQ(third.denial->retry_after_s.value(), 40) << "until the oldest of them is gone";
}

// A fixed reservation of, say, 1,024 tokens would refuse everything to a key of 100.
TEST(Ledger, SmallKeysGetTheirWholeLimit) {
  LedgerFixture fixture;
  const auto caller = fixture.ledger->authenticate(fixture.create(limited(100)).key).value();
  int64_t used = 0;
  for (int i = 0; i < 20; ++i) {
    Admission admission = reserve(*fixture.ledger, caller, 5, 4096);
    if (!admission.reservation) break;
    admission.reservation->settle({5, 0, 5}, {});
    used += 10;
  }
  EXPECT_EQ(used, 100);
  const Admission large = reserve(*fixture.ledger, caller, 100, 1);
  EXPECT_EQ(large.denial->error.kind, api::ErrorKind::kRateLimit);
  EXPECT_FALSE(large.denial->retry_after_s);  // waiting would not help
}

TEST(Ledger, RequestsPerMinuteAndRefunds) {
  LedgerFixture fixture;
  const auto caller = fixture.ledger->authenticate(fixture.create(limited(0, 3)).key).value();
  std::vector<Admission> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(reserve(*fixture.ledger, caller, 10, 10));
    ASSERT_TRUE(held.back().reservation);
    fixture.clock->advance(std::chrono::seconds(10));
  }
  const Admission fourth = reserve(*fixture.ledger, caller, 10, 10);
  EXPECT_EQ(fourth.denial->retry_after_s.value(), 30);
  held.pop_back();  // refunded: that request did not happen
  EXPECT_TRUE(reserve(*fixture.ledger, caller, 10, 10).reservation);
}

TEST(Ledger, ConcurrentRequestsOvershootByNoMoreThanOneReservation) {
  LedgerFixture fixture;
  constexpr int64_t kLimit = 1000, kPrompt = 60, kOutput = 200;
  const auto caller = fixture.ledger->authenticate(fixture.create(limited(kLimit)).key).value();
  std::atomic<int64_t> used{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        Admission admission = reserve(*fixture.ledger, caller, kPrompt, kOutput);
        if (!admission.reservation) continue;
        std::this_thread::yield();
        if (i % 5 == 4) continue;   // refunded
        used += kPrompt + kOutput;  // every one uses all it may
        admission.reservation->settle({kPrompt, 0, kOutput}, {});
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GE(used, kLimit - kPrompt - kOutput);
  EXPECT_LE(used, kLimit + kPrompt + kOutput);
}

TEST(Ledger, BudgetsCountDollarsByTheirPeriod) {
  LedgerFixture fixture;
  KeyRecord record = limited(0);
  record.budget_nanodollars = 1'000'000'000;  // a dollar
  record.budget_period = BudgetPeriod::kDay;
  const auto created = fixture.create(record);
  const auto caller = fixture.ledger->authenticate(created.key).value();
  const Price price{100, 200, 10};  // a hundred dollars for a million prompt tokens
  Admission first = reserve(*fixture.ledger, caller, 1000, 4000, price);
  ASSERT_TRUE(first.reservation);  // 0.1 + 0.8
  Admission second = reserve(*fixture.ledger, caller, 2000, 1, price);
  EXPECT_EQ(second.denial->error.kind, api::ErrorKind::kRateLimit);  // reserved, perhaps not spent
  first.reservation->settle({1000, 500, 1000}, price);               // 0.05 + 0.005 + 0.2
  EXPECT_TRUE(reserve(*fixture.ledger, caller, 2000, 1, price).reservation);
  reserve(*fixture.ledger, caller, 2000, 3000, price).reservation->settle({2000, 0, 2800}, price);  // 0.76
  Admission spent = reserve(*fixture.ledger, caller, 1, 1, price);
  EXPECT_EQ(spent.denial->error.http_status(), 402);
  EXPECT_FALSE(spent.denial->retry_after_s);
  fixture.open();  // a restart remembers
  EXPECT_EQ(reserve(*fixture.ledger, caller, 1, 1, price).denial->error.http_status(), 402);
  *fixture.unix_s -= 10 * 86400;  // the clock set back gives nothing
  EXPECT_EQ(reserve(*fixture.ledger, caller, 1, 1, price).denial->error.http_status(), 402);
  *fixture.unix_s += 11 * 86400;  // the next day
  EXPECT_TRUE(reserve(*fixture.ledger, caller, 1000, 1000, price).reservation);
  // Budgets are refunded and usage is counted once.
  const auto usage = fixture.ledger->usage(created.record.id, INT64_MIN).value();
  ASSERT_EQ(usage.size(), 1u);
  EXPECT_EQ(usage.begin()->second.requests, 2);
  EXPECT_EQ(usage.begin()->second.nanodollars, 255'000'000 + 760'000'000);
}

TEST(Ledger, RevokedKeysStopAtOnceHereAndSoonElsewhere) {
  LedgerFixture fixture;
  const auto created = fixture.create(limited(1000));
  auto other =
      TenantLedger::open(open_sqlite_store(fixture.folder.file("tenants.db")).value(), nullptr, fixture.options());
  ASSERT_TRUE(other.ok());
  const auto caller = (*other)->authenticate(created.key).value();
  Admission held = reserve(**other, caller, 10, 890);
  ASSERT_TRUE(
      fixture.ledger->update(created.record.id, "key.revoke", "test", [](KeyRecord& r) { r.revoked = true; }).ok());
  EXPECT_FALSE(fixture.ledger->authenticate(created.key).ok());
  EXPECT_TRUE((*other)->authenticate(created.key).ok());
  ASSERT_TRUE((*other)->refresh().ok());
  EXPECT_FALSE((*other)->authenticate(created.key).ok());
  EXPECT_EQ(reserve(**other, caller, 10, 10).denial->error.kind, api::ErrorKind::kAuthentication);
  // Its limits go on when it comes back: what is held is still held.
  ASSERT_TRUE(
      fixture.ledger->update(created.record.id, "key.update", "test", [](KeyRecord& r) { r.revoked = false; }).ok());
  ASSERT_TRUE((*other)->refresh().ok());
  EXPECT_EQ(reserve(**other, caller, 10, 890).reservation->tokens(), 100);
}

class FailingStore final : public TenantStore {
 public:
  explicit FailingStore(std::shared_ptr<std::atomic<bool>> down, std::unique_ptr<TenantStore> below)
      : down_(std::move(down)), below_(std::move(below)) {}
  Result<std::string> salt() override { return below_->salt(); }
  Result<std::vector<KeyRecord>> keys() override { return below_->keys(); }
  Status put_key(const KeyRecord& key, const AuditEntry& entry) override {
    if (*down_) return Error{ErrorCode::kUnavailable, "disk full"};
    return below_->put_key(key, entry);
  }
  Status add_usage(const UsageTable& usage) override {
    if (*down_) return Error{ErrorCode::kUnavailable, "disk full"};
    return below_->add_usage(usage);
  }
  Result<UsageTable> usage(const std::string& key, int64_t day) override { return below_->usage(key, day); }
  Result<std::vector<AuditEntry>> audit(int limit) override { return below_->audit(limit); }
  Result<int64_t> version() override { return below_->version(); }

 private:
  std::shared_ptr<std::atomic<bool>> down_;
  std::unique_ptr<TenantStore> below_;
};

TEST(Ledger, AFullDiskStopsNoRequestAndLosesNoUsage) {
  LedgerFixture fixture;
  fixture.ledger.reset();
  auto down = std::make_shared<std::atomic<bool>>(false);
  auto store = std::make_unique<FailingStore>(down, open_sqlite_store(fixture.folder.file("tenants.db")).value());
  auto ledger = TenantLedger::open(std::move(store), nullptr, fixture.options()).value();
  const auto created = ledger->create(limited(0), "test").value();
  const auto caller = ledger->authenticate(created.key).value();
  *down = true;
  for (int i = 0; i < 50; ++i) reserve(*ledger, caller, 10, 10).reservation->settle({10, 0, 10}, {});
  EXPECT_FALSE(ledger->flush());
  EXPECT_FALSE(ledger->create(limited(0), "test").ok());  // a key that is not kept is not given out
  EXPECT_EQ(ledger->keys().size(), 1u);
  EXPECT_FALSE(ledger->usage("", INT64_MIN).ok());
  *down = false;
  const auto usage = ledger->usage("", INT64_MIN).value();
  ASSERT_EQ(usage.size(), 1u);
  EXPECT_EQ(usage.begin()->second.requests, 50);
}

// kill -9 at any moment leaves a whole file with everything that was flushed.
TEST(Ledger, SurvivesKillMinusNine) {
  TemporaryFolder folder;
  const std::string path = folder.file("tenants.db");
  ASSERT_TRUE(open_sqlite_store(path).ok());
  for (int round = 0; round < 3; ++round) {
    int told[2];
    ASSERT_EQ(::pipe(told), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      auto store = open_sqlite_store(path);
      for (int64_t i = 0; store.ok(); ++i) {
        if (!(*store)->add_usage({{{"key", 1, "m"}, {1, 10, 0, 5, 100}}}).ok()) ::_exit(1);
        if (::write(told[1], "x", 1) != 1) ::_exit(1);
      }
      ::_exit(1);
    }
    ::close(told[1]);
    char byte;
    int committed = 0;
    for (; committed < 20; ++committed) ASSERT_EQ(::read(told[0], &byte, 1), 1);
    ::kill(child, SIGKILL);
    while (::read(told[0], &byte, 1) == 1) ++committed;
    ::close(told[0]);
    ::waitpid(child, nullptr, 0);
    auto store = open_sqlite_store(path);
    ASSERT_TRUE(store.ok()) << store.error().message;
    static int64_t before = 0;
    const auto usage = (*store)->usage("key", 0).value();
    const UsageSum sum = usage.begin()->second;
    EXPECT_GE(sum.requests, before + committed);
    EXPECT_LE(sum.requests, before + committed + 1);  // committed and not told any more
    EXPECT_EQ(sum.prompt_tokens, 10 * sum.requests);  // never half a row
    before = sum.requests;
  }
}

TEST(SqliteStore, TheAuditLogOnlyGrows) {
  TemporaryFolder folder;
  const std::string path = folder.file("tenants.db");
  auto store = open_sqlite_store(path).value();
  KeyRecord key;
  key.id = "key-1";
  ASSERT_TRUE(store->put_key(key, {5, "admin", "key.create", "key-1", "{}"}).ok());
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  for (const char* sql : {"DELETE FROM audit", "UPDATE audit SET actor = 'nobody'"}) {
    char* message = nullptr;
    EXPECT_NE(sqlite3_exec(database, sql, nullptr, nullptr, &message), SQLITE_OK) << sql;
    EXPECT_THAT(std::string(message), HasSubstr("only grows"));
    sqlite3_free(message);
  }
  sqlite3_close(database);
  EXPECT_EQ(store->audit(10).value().at(0).actor, "admin");
}

TEST(SqliteStore, RefusesWhatIsNoDatabase) {
  TemporaryFolder folder;
  std::ofstream(folder.file("x.db")) << std::string(4096, 'x');
  const auto store = open_sqlite_store(folder.file("x.db"));
  ASSERT_FALSE(store.ok());
  EXPECT_THAT(store.error().message, HasSubstr("not a database"));
  EXPECT_FALSE(open_sqlite_store(folder.file("no/such/folder.db")).ok());
}

}  // namespace
}  // namespace spillway::gateway
