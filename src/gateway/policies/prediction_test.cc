// Policies that look at load, caches, cost and place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "gateway/policies/load.h"
#include "gateway/policies/policies_fixture_for_test.h"
#include "gateway/policies/prefix_index.h"

namespace spillway::gateway {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr TimePoint kNow = TimePoint(std::chrono::hours(1));

LoadReport report(double wait_s, int running = 0, Duration age = {}) {
  LoadReport report;
  report.at = kNow - age;
  report.running = running;
  report.predicted_wait_s = wait_s;
  return report;
}

std::string first(const Fleet& fleet, const PolicyChain& chain, const RequestFeatures& request = a_request(),
                  const PrefixIndex* prefixes = nullptr) {
  const auto names = fleet.names(chain.decide(request, fleet.states, kNow, prefixes));
  return names.empty() ? "" : names[0];
}

TEST(LeastPredicted, AddsWaitPrefillDecodeAndRoundTrip) {
  Fleet fleet;
  fleet.add("far", Tier::kCentre).round_trip_s = 0.5;
  fleet.state("far").report = report(0.25);
  fleet.state("far").rate = {1000, 100};
  RequestFeatures request = a_request();
  request.prompt_tokens = 2000;
  request.output_tokens_expected = 300;
  const Decision decision = chain({"least_predicted jitter=0"}).decide(request, fleet.states, kNow, nullptr, true);
  EXPECT_DOUBLE_EQ(decision.order[0].predicted_first_s, 0.5 + 0.25 + 2);
  EXPECT_DOUBLE_EQ(decision.order[0].predicted_s, 0.5 + 0.25 + 2 + 3);
  EXPECT_THAT(decision.order[0].reasons[0], HasSubstr("5.750 s = round trip 0.500 + wait 0.250 + prefill 2.000"));
}

TEST(LeastPredicted, CountsWhatWasSentSinceTheReport) {
  Fleet fleet;
  fleet.add("a", Tier::kCentre);
  fleet.add("b", Tier::kCentre);
  fleet.state("a").report = report(0.1);
  fleet.state("b").report = report(0.2);
  const PolicyChain soonest = chain({"least_predicted jitter=0"});
  EXPECT_EQ(first(fleet, soonest), "a");
  fleet.state("a").in_flight = 3;
  fleet.state("a").in_flight_prompt_tokens = 5000;  // half a second of prefill that the report cannot know
  EXPECT_EQ(first(fleet, soonest), "b");
  fleet.state("a").in_flight_at_report = 3;
  fleet.state("a").prompt_tokens_at_report = 5000;  // it does know
  EXPECT_EQ(first(fleet, soonest), "a");
}

TEST(LeastPredicted, AStaleReportIsUnknownAndNeverIdle) {
  Fleet fleet;
  for (const char* name : {"silent", "busy", "idle"}) fleet.add(name, Tier::kCentre).reports_load = true;
  fleet.state("silent").report = report(0, 0, std::chrono::seconds(30));  // was idle half a minute ago
  fleet.state("busy").report = report(2);
  fleet.state("idle").report = report(0.01);
  const PolicyChain soonest = chain({"least_predicted jitter=0"});
  EXPECT_THAT(fleet.names(soonest.decide(a_request(), fleet.states, kNow)).front(), "idle");
  const Decision decision = soonest.decide(a_request(), fleet.states, kNow, nullptr, true);
  for (const Candidate& candidate : decision.order) {
    if (fleet.states[candidate.upstream].info->name != "silent") continue;
    EXPECT_GE(candidate.predicted_s, 2);
    EXPECT_THAT(candidate.reasons[0], HasSubstr("no fresh report"));
  }
  EXPECT_GE(pressure(fleet.state("silent"), kNow, 1), 1);
  fleet.state("silent").report.reset();  // it never said anything: the same
  EXPECT_EQ(knowledge(fleet.state("silent"), kNow, 1), Knowledge::kUnknown);
  fleet.state("silent").report = report(0, 0, std::chrono::seconds(-30));  // a clock that jumped
  EXPECT_EQ(knowledge(fleet.state("silent"), kNow, 1), Knowledge::kUnknown);
}

TEST(LeastPredicted, AFullServerWaitsForASlot) {
  Fleet fleet;
  fleet.add("full", Tier::kCentre).concurrency_max = 4;
  fleet.add("slow", Tier::kCentre).concurrency_max = 4;
  fleet.state("slow").rate = {10000, 40};
  const PolicyChain soonest = chain({"least_predicted jitter=0"});
  fleet.state("full").in_flight = 3;
  EXPECT_EQ(first(fleet, soonest), "full");  // one slot left
  fleet.state("full").in_flight = 8;
  EXPECT_EQ(first(fleet, soonest), "slow");
}

TEST(LeastPredicted, LateUpstreamsComeAfterThoseInTime) {
  Fleet fleet;
  fleet.add("edge", Tier::kEdge);
  fleet.add("main", Tier::kCentre);
  fleet.state("edge").rate = {10000, 10};  // 5 s for 50 tokens
  RequestFeatures request = a_request();
  request.deadline = kNow + std::chrono::seconds(3);
  EXPECT_EQ(first(fleet, chain({"edge_first", "least_predicted"}), request), "main");
  request.deadline.reset();
  EXPECT_EQ(first(fleet, chain({"edge_first", "least_predicted"}), request), "edge");
}

TEST(LeastPredicted, WhoWasNeverMeasuredGetsTried) {
  Fleet fleet;
  for (const char* name : {"known", "new"}) fleet.add(name, Tier::kEdge);
  fleet.state("known").rate = {9000, 100};
  fleet.state("new").rate = {};
  fleet.state("known").in_flight_prompt_tokens = 100;
  EXPECT_EQ(first(fleet, chain({"least_predicted jitter=0"})), "new");
}

TEST(LeastPredicted, TwoChoicesSpreadWhereTheBestWouldHerd) {
  Fleet fleet;
  for (int i = 0; i < 10; ++i) {
    fleet.add("u" + std::to_string(i), Tier::kCentre);
    fleet.states.back().report = report(0.1 * i);
  }
  std::map<std::string, int> herd, spread;
  const PolicyChain best = chain({"least_predicted"}), two = chain({"least_predicted choices=2"});
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    RequestFeatures request = a_request();
    request.seed = seed;
    ++herd[first(fleet, best, request)];
    const Decision decision = two.decide(request, fleet.states, kNow);
    ASSERT_EQ(decision.order.size(), 10u);  // the others remain as fallbacks
    ++spread[fleet.names(decision)[0]];
  }
  EXPECT_EQ(herd["u0"], 1000);
  EXPECT_NEAR(spread["u0"], 200, 60);  // it is among two of ten one time in five
  EXPECT_EQ(spread["u9"], 0);          // the worst never wins
}

TEST(LeastPredicted, AWarmingUpstreamGetsLess) {
  Fleet fleet;
  fleet.add("warm", Tier::kCentre);
  fleet.add("cold", Tier::kCentre);
  fleet.state("cold").share = 0.1;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    RequestFeatures request = a_request();
    request.seed = seed;
    EXPECT_EQ(first(fleet, chain({"least_predicted"}), request), "warm");
  }
}

std::vector<uint64_t> blocks(uint64_t from, size_t count) {
  std::vector<uint64_t> blocks;
  for (size_t i = 0; i < count; ++i) blocks.push_back(from + i);
  return blocks;
}

RequestFeatures with_blocks(const std::vector<uint64_t>& blocks) {
  RequestFeatures request = a_request();
  request.prefix_blocks = blocks;
  request.tokens_per_block = 100;
  request.prompt_tokens = static_cast<int64_t>(100 * blocks.size());
  return request;
}

TEST(PrefixAffinity, GoesWhereThePromptIsAndCountsWhatIsSaved) {
  Fleet fleet;
  for (const char* name : {"a", "b", "c"}) fleet.add(name, Tier::kCentre).price = {1, 1, 0.1};
  PrefixIndex index;
  index.record(1, blocks(0, 40), kNow);
  index.record(2, blocks(0, 10), kNow);
  const RequestFeatures request = with_blocks(blocks(0, 50));
  const Decision decision =
      chain({"prefix_affinity", "least_predicted jitter=0"}).decide(request, fleet.states, kNow, &index);
  EXPECT_THAT(fleet.names(decision), ElementsAre("b", "c", "a"));
  EXPECT_DOUBLE_EQ(decision.order[0].cached_tokens, 4000);
  EXPECT_DOUBLE_EQ(decision.order[0].predicted_first_s, 1000 / 10000.0);
  EXPECT_DOUBLE_EQ(decision.order[0].cost, (1000 * 1 + 4000 * 0.1 + 50 * 1) * 1e-6);
  // Alone it orders too.
  EXPECT_EQ(first(fleet, chain({"prefix_affinity"}), request, &index), "b");
}

TEST(PrefixAffinity, APopularPrefixSpreadsInsteadOfBuildingAHotSpot) {
  Fleet fleet;
  for (int i = 0; i < 8; ++i) fleet.add("u" + std::to_string(i), Tier::kCentre).concurrency_max = 32;
  PrefixIndex index;
  index.record(3, blocks(0, 50), kNow);
  const PolicyChain affine = chain({"prefix_affinity"});
  std::set<size_t> used;
  int most = 0;
  for (uint64_t seed = 0; seed < 160; ++seed) {  // nobody ever finishes
    RequestFeatures request = with_blocks(blocks(0, 50));
    request.seed = seed;
    const Decision decision = affine.decide(request, fleet.states, kNow, &index);
    const size_t chosen = decision.order[0].upstream;
    index.record(chosen, request.prefix_blocks, kNow);
    most = std::max(most, ++fleet.states[chosen].in_flight);
    used.insert(chosen);
  }
  EXPECT_GE(used.size(), 6u);
  EXPECT_LE(most, 1.25 * 160 / 8 + 2 + 1);  // the mean times imbalance, the slack, and the one being placed
}

// The death spiral: when nothing is cached anywhere, new prompts must not all go to the same (the busiest) upstream.
TEST(PrefixAffinity, UnknownPromptsNeverFollowEachOther) {
  Fleet fleet;
  for (int i = 0; i < 8; ++i) fleet.add("u" + std::to_string(i), Tier::kCentre);
  PrefixIndex index;
  const PolicyChain affine = chain({"prefix_affinity", "least_predicted"});
  std::vector<int> times(8);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    RequestFeatures request = with_blocks(blocks(1000 * (seed + 1), 320));
    request.seed = seed;
    const size_t chosen = affine.decide(request, fleet.states, kNow, &index).order[0].upstream;
    index.record(chosen, request.prefix_blocks, kNow);
    ++times[chosen];
    ++fleet.states[chosen].in_flight;
    fleet.states[chosen].in_flight_prompt_tokens += request.prompt_tokens;
  }
  for (const int count : times) EXPECT_NEAR(count, 50, 5);
}

TEST(PrefixIndex, MemoryIsBoundedAndLeavesGoBeforeRoots) {
  PrefixIndex index({.entries_max = 100});
  index.record(0, blocks(0, 10), kNow);
  for (uint64_t i = 1; i <= 50; ++i) {
    index.record(0, blocks(0, 2), kNow);  // the shared beginning stays in use
    index.record(1, blocks(1000 * i, 10), kNow);
  }
  EXPECT_EQ(index.entries(), 100u);
  std::vector<uint32_t> matched(2);
  index.match(blocks(0, 10), kNow, matched);
  EXPECT_EQ(matched[0], 2u);
  index.match(blocks(50000, 10), kNow, matched);
  EXPECT_EQ(matched[1], 10u);
  index.record(1, blocks(1, 5000), kNow);  // longer than the whole index
  EXPECT_EQ(index.entries(), 100u);
  index.match(blocks(1, 5000), kNow, matched);
  EXPECT_EQ(matched[1], 100u);
}

TEST(PrefixIndex, BeliefsExpireAreReportedAndForgotten) {
  PrefixIndex index({.entries_max = 1000, .ttl = std::chrono::seconds(10)});
  std::vector<uint32_t> matched(kPrefixUpstreamsMax);
  const auto has = [&](size_t upstream, TimePoint at) {
    index.match(blocks(0, 10), at, matched);
    return matched[upstream];
  };
  index.record(200, blocks(0, 10), kNow);
  EXPECT_EQ(has(200, kNow), 10u);
  EXPECT_EQ(has(0, kNow), 0u);
  EXPECT_EQ(has(200, kNow + std::chrono::seconds(11)), 0u);
  index.report(7, blocks(0, 6), {}, kNow);
  EXPECT_EQ(has(7, kNow), 6u);
  index.report(7, {}, blocks(3, 1), kNow);  // evicted in the middle: what is behind it is out of reach
  EXPECT_EQ(has(7, kNow), 3u);
  index.forget(200);
  EXPECT_EQ(has(200, kNow), 0u);
  EXPECT_EQ(has(7, kNow), 3u);
}

TEST(PrefixIndex, UpstreamsThatDoNotCacheLoseTrust) {
  PrefixIndex index;
  EXPECT_DOUBLE_EQ(index.trust(3), 1);
  for (int i = 0; i < 50; ++i) index.observe(3, 1000, 0);
  EXPECT_LT(index.trust(3), 0.01);
  for (int i = 0; i < 50; ++i) index.observe(3, 1000, 1000);
  EXPECT_GT(index.trust(3), 0.99);
  EXPECT_DOUBLE_EQ(index.trust(4), 1);
}

TEST(CostCeiling, AbsoluteRelativeAndTheCheapest) {
  Fleet fleet;
  fleet.add("cheap", Tier::kEdge).price = {1, 1};
  fleet.add("dear", Tier::kCentre).price = {10, 10};
  RequestFeatures request = a_request();
  request.prompt_tokens = 950;  // with 50 out: 1,000 tokens
  const auto names = [&](const char* policy) {
    return fleet.names(chain({policy}).decide(request, fleet.states, kNow));
  };
  EXPECT_THAT(names("cost_ceiling usd_max=0.002"), ElementsAre("cheap"));
  EXPECT_EQ(names("cost_ceiling usd_max=0.02").size(), 2u);
  EXPECT_THAT(names("cost_ceiling factor_max=5"), ElementsAre("cheap"));
  EXPECT_TRUE(names("cost_ceiling usd_max=0.0001").empty());
  EXPECT_THAT(names("cost_ceiling usd_max=0.0001 otherwise=cheapest"), ElementsAre("cheap"));
}

TEST(TierFirst, EdgeUntilItIsFullOrTheTextIsLong) {
  Fleet fleet;
  fleet.add("edge", Tier::kEdge).concurrency_max = 10;
  fleet.add("main", Tier::kCentre);
  const PolicyChain edge_first = chain({"edge_first text_tokens_max=2000 pressure_max=0.8", "least_predicted"});
  fleet.state("edge").rate = {5000, 20};  // slower than the centre
  RequestFeatures request = a_request();
  EXPECT_EQ(first(fleet, edge_first, request), "edge");
  request.prompt_tokens = 2001;
  EXPECT_EQ(first(fleet, edge_first, request), "main");
  request.prompt_tokens = 2000;
  fleet.state("edge").in_flight = 8;
  EXPECT_EQ(first(fleet, edge_first, request), "main");
  // Under pressure too, the edge is still there when the centre is not.
  fleet.state("main").health = Health::kDown;
  EXPECT_EQ(first(fleet, edge_first, request), "edge");
}

TEST(TierFirst, CentreUntilItIsFull) {
  Fleet fleet;
  fleet.add("edge", Tier::kEdge);
  fleet.add("main", Tier::kCentre).concurrency_max = 10;
  const PolicyChain centre_first = chain({"centre_first pressure_max=0.5", "least_predicted"});
  fleet.state("main").rate = {5000, 20};
  EXPECT_EQ(first(fleet, centre_first), "main");
  fleet.state("main").in_flight = 5;
  EXPECT_EQ(first(fleet, centre_first), "edge");
}

TEST(Canary, ASteadyFractionOfSessions) {
  Fleet fleet;
  fleet.add("new", Tier::kCentre);
  fleet.add("old", Tier::kCentre);
  const PolicyChain canary = chain({"canary upstream=new fraction=0.1"});
  int chosen = 0;
  for (int session = 0; session < 2000; ++session) {
    RequestFeatures request = a_request();
    request.session = "user-" + std::to_string(session);
    request.seed = 1;
    const auto once = fleet.names(canary.decide(request, fleet.states, kNow));
    request.seed = 2;
    EXPECT_EQ(once, fleet.names(canary.decide(request, fleet.states, kNow)));
    EXPECT_EQ(once.size(), 2u);
    chosen += once[0] == "new";
  }
  EXPECT_NEAR(chosen, 200, 45);
  fleet.state("old").health = Health::kDown;
  EXPECT_EQ(first(fleet, canary), "new");
}

TEST(Shadow, CopiesAFractionAndServesNobody) {
  Fleet fleet;
  fleet.add("main", Tier::kCentre);
  fleet.add("next", Tier::kCentre);
  const PolicyChain shadow = chain({"shadow upstream=next fraction=0.25"});
  int copied = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    RequestFeatures request = a_request();
    request.seed = seed;
    const Decision decision = shadow.decide(request, fleet.states, kNow);
    EXPECT_THAT(fleet.names(decision), ElementsAre("main"));
    copied += decision.shadow.has_value();
    EXPECT_EQ(decision.shadow.value_or(1), 1u);
  }
  EXPECT_NEAR(copied, 500, 70);
}

TEST(LeastLoaded, ShareOfConcurrencyInUse) {
  Fleet fleet;
  fleet.add("small", Tier::kCentre).concurrency_max = 4;
  fleet.add("large", Tier::kCentre).concurrency_max = 100;
  fleet.state("small").in_flight = 2;
  fleet.state("large").in_flight = 40;
  EXPECT_EQ(first(fleet, chain({"least_loaded"})), "large");
}

}  // namespace
}  // namespace spillway::gateway
