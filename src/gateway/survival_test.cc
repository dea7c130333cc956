// The state machines that keep a fleet alive, with time moved by hand.
#include <gtest/gtest.h>

#include "gateway/breaker.h"
#include "gateway/cached_prefixes.h"
#include "gateway/concurrency_limit.h"
#include "gateway/discovery.h"
#include "gateway/key_ring.h"
#include "gateway/latency_window.h"
#include "gateway/prober.h"
#include "gateway/retry_budget.h"
#include "gateway/upstream.h"

namespace spillway::gateway {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint kStart = TimePoint() + std::chrono::hours(1);

TEST(Breaker, OpensProbesOneAtATimeAndClosesSlowly) {
  Breaker breaker;
  for (int i = 0; i < 5; ++i) breaker.failed(kStart);
  EXPECT_EQ(breaker.state(kStart), Breaker::State::kOpen);
  EXPECT_FALSE(breaker.admit(kStart + milliseconds(900)));
  const TimePoint later = kStart + milliseconds(1100);
  EXPECT_TRUE(breaker.admit(later));
  EXPECT_FALSE(breaker.admit(later));  // one probe
  breaker.succeeded(later);
  EXPECT_TRUE(breaker.admit(later));
  breaker.succeeded(later);
  EXPECT_EQ(breaker.state(later), Breaker::State::kClosed);
  EXPECT_LT(breaker.share(later), 0.5);
  EXPECT_DOUBLE_EQ(breaker.share(later + seconds(11)), 1);
}

TEST(Breaker, AFailedProbeOpensItForLonger) {
  Breaker breaker;
  for (int i = 0; i < 5; ++i) breaker.failed(kStart);
  TimePoint at = breaker.opens_again_at() + milliseconds(1);
  ASSERT_TRUE(breaker.admit(at));
  breaker.failed(at);
  EXPECT_GE(breaker.opens_again_at() - at, milliseconds(1900));
}

TEST(KeyRing, RotatesAndLetsRefusedKeysRest) {
  KeyRing ring({"a", "b"});
  const size_t first = *ring.next(kStart), second = *ring.next(kStart);
  EXPECT_NE(first, second);
  ring.refused(first, kStart);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ring.next(kStart), second);
  ring.limited(second, kStart, seconds(3));
  EXPECT_FALSE(ring.next(kStart).has_value());
  EXPECT_EQ(ring.usable_at(kStart), kStart + seconds(3));
  EXPECT_EQ(ring.next(kStart + seconds(4)), second);
}

TEST(RetryBudget, KeepsRetriesToAShareOfRequests) {
  RetryBudget budget({0.2, 0, seconds(10)});
  for (int i = 0; i < 1000; ++i) budget.request(kStart);
  int taken = 0;
  while (budget.take(kStart)) ++taken;
  EXPECT_NEAR(taken, 200, 2);
}

TEST(LatencyWindow, QuantilesWithinTenPercent) {
  LatencyWindow window;
  EXPECT_FALSE(window.quantile(kStart, 0.99).has_value());
  for (int i = 1; i <= 1000; ++i) window.add(kStart, milliseconds(i));
  EXPECT_NEAR(spillway::seconds(*window.quantile(kStart, 0.99)), 0.99, 0.1);
  EXPECT_NEAR(spillway::seconds(*window.quantile(kStart, 0.5)), 0.5, 0.06);
}

TEST(ConcurrencyLimit, FallsWhenTheQueueWaitsAndRisesAgain) {
  ConcurrencyLimit limit({});
  const int before = limit.limit();
  TimePoint at = kStart;
  for (int i = 0; i < 20; ++i) limit.queue_wait(at += milliseconds(250), seconds(2), before);
  const int low = limit.limit();
  EXPECT_LT(low, before);
  for (int i = 0; i < 200; ++i) limit.queue_wait(at += milliseconds(250), milliseconds(0), limit.limit());
  EXPECT_GT(limit.limit(), low);
}

TEST(Upstream, ALimitedKeyDoesNotBlameTheUpstream) {
  UpstreamOptions options;
  options.info.name = "u";
  options.keys = {"a", "b"};
  Upstream upstream(options);
  auto ticket = upstream.admit(kStart, 10);
  ASSERT_TRUE(ticket.has_value());
  upstream.finished(*ticket, kStart, Outcome::kLimited, seconds(60));
  EXPECT_TRUE(upstream.may_admit(kStart));
  EXPECT_EQ(upstream.state(kStart).health, Health::kHealthy);
  ticket = upstream.admit(kStart, 10);
  ASSERT_TRUE(ticket.has_value());
  upstream.finished(*ticket, kStart, Outcome::kLimited, seconds(60));
  EXPECT_FALSE(upstream.may_admit(kStart));
  EXPECT_EQ(upstream.may_admit_at(kStart), kStart + seconds(60));
}

TEST(Upstream, ThatSaysItIsUnwellIsSparedUntilItSaysOtherwise) {
  Upstream upstream{UpstreamOptions{}};
  upstream.unwell(kStart + seconds(15));
  EXPECT_FALSE(upstream.admit(kStart, 10).has_value());
  EXPECT_EQ(upstream.state(kStart).health, Health::kDown);
  EXPECT_TRUE(upstream.open(kStart));  // who failed there may go elsewhere without a retry budget
  EXPECT_TRUE(upstream.admit(kStart, 10, true).has_value());
  EXPECT_TRUE(upstream.may_admit(kStart + seconds(15)));  // it has been silent since
  upstream.probed(kStart + seconds(1), true);
  EXPECT_TRUE(upstream.admit(kStart + seconds(1), 10).has_value());
}

TEST(Upstream, ForceDoesNotOverfillIt) {
  UpstreamOptions options;
  options.info.concurrency_max = 2;
  Upstream upstream{options};
  EXPECT_TRUE(upstream.admit(kStart, 10, true).has_value());
  EXPECT_TRUE(upstream.admit(kStart, 10).has_value());
  EXPECT_FALSE(upstream.admit(kStart, 10, true).has_value());
}

TEST(LoadReport, IsReadFromASpillwaysHealth) {
  const auto report = parse_load_report(
      R"({"status":"ready","requests_in_flight":3,"models":[{"id":"m","running":2,"waiting":1,"waiting_tokens":500,"pages_total":100,"pages_free":20,"pages_cached":30,"predicted_wait_s":0.25}]})");
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->running, 2);
  EXPECT_EQ(report->waiting_tokens, 500);
  EXPECT_DOUBLE_EQ(report->predicted_wait_s, 0.25);
  EXPECT_DOUBLE_EQ(report->memory_used, 0.5);
  for (const char* other : {"", "{}", "[]", R"({"models":3})", R"({"models":[{]})", "ok"})
    EXPECT_FALSE(parse_load_report(other)) << other;
}

TEST(CachedPrefixes, AreReadAndAnythingElseIsNone) {
  const auto told = parse_cached_prefixes(R"({"epoch":"e1","more":[1],"blocks":["a","ffffffffffffffff"]})");
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->epoch, "e1");
  EXPECT_EQ(told->blocks, (std::vector<uint64_t>{0xa, ~uint64_t{0}}));
  for (const char* other : {"", "{}", R"({"epoch":"e"})", R"({"blocks":[]})", R"({"epoch":"e","blocks":["xyz"]})",
                            R"({"epoch":"e","blocks":[1]})", R"({"epoch":"e","blocks":["1"})"})
    EXPECT_FALSE(parse_cached_prefixes(other)) << other;
  EXPECT_EQ(prefix_header({0xa, 0xbc}, 99.7), "100:a,bc");
  EXPECT_EQ(prefix_header({}, 99.7), "");
}

TEST(CachedPrefixes, OthersRequestsEvictionsAndRestartsAreLearned) {
  PrefixIndex index;
  PrefixReports reports(index, 3);
  const TimePoint at = std::chrono::steady_clock::now();
  const std::vector<uint64_t> prompt{1, 2, 3};
  const auto believed = [&] {
    std::vector<uint32_t> matched(4);
    index.match(prompt, at, matched);
    return matched[3];
  };
  reports.take({"e1", {1, 2, 3}}, at);  // that nobody here sent
  EXPECT_EQ(believed(), 3u);
  reports.take({"e1", {1, 2}}, at);
  EXPECT_EQ(believed(), 2u);
  index.record(3, prompt, at);  // our own, on its way
  reports.take({"e1", {1, 2}}, at);
  EXPECT_EQ(believed(), 3u);
  reports.take({"e2", {}}, at);
  EXPECT_EQ(believed(), 0u);
}

TEST(Discovery, ReadsReadyEndpointsOfTheMeantPort) {
  const char* body =
      R"({"kind":"Endpoints","subsets":[{"addresses":[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}],"notReadyAddresses":[{"ip":"10.0.0.3"}],
          "ports":[{"name":"metrics","port":9090},{"name":"http","port":8000}]}]})";
  const auto found = parse_endpoints(body, "http");
  ASSERT_TRUE(found.ok()) << found.error().message;
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ((*found)[1].address, "10.0.0.2");
  EXPECT_EQ((*found)[1].port, 8000);
  EXPECT_EQ((*parse_endpoints(body, "9090"))[0].port, 9090);
  EXPECT_FALSE(parse_endpoints(body, "grpc").ok());
  EXPECT_TRUE(parse_endpoints("{}", "")->empty());
  EXPECT_FALSE(parse_endpoints("no json", "").ok());
}

TEST(Discovery, KeepsTheLastAddressesWhileTheNameCannotBeFound) {
  UpstreamOptions wanted;
  wanted.info.name = "edge";
  wanted.discovery = UpstreamOptions::Discovery::kDns;
  wanted.base = {false, "localhost", 8000, "/"};
  Discovery discovery({});
  std::vector<std::string> problems;
  const auto found = discovery.expand({wanted}, problems);
  ASSERT_FALSE(found.empty());
  EXPECT_TRUE(problems.empty());
  EXPECT_NE(found[0].info.name, "edge");
  EXPECT_EQ(found[0].base.port, 8000);
  wanted.base.host = "no-such-host.invalid";
  EXPECT_EQ(discovery.expand({wanted}, problems).size(), found.size());
  EXPECT_EQ(problems.size(), 1u);
}

}  // namespace
}  // namespace spillway::gateway
