// The policies, each alone and together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "gateway/policies/explain.h"
#include "gateway/policies/policies_fixture_for_test.h"

namespace spillway::gateway {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(PolicyChain, NobodyWhoCannotServeIsACandidate) {
  Fleet fleet;
  fleet.add("other", Tier::kCentre).models = {"other-model"};
  fleet.add("short", Tier::kCentre).context_tokens_max = 100;
  fleet.add("blind", Tier::kCentre).images = false;
  fleet.add("down", Tier::kCentre);
  fleet.add("good", Tier::kCentre);
  fleet.state("down").health = Health::kDown;
  RequestFeatures request = a_request();
  request.prompt_tokens = 90;
  request.max_tokens = 20;
  request.images = true;
  const Decision decision = chain({}).decide(request, fleet.states, {}, nullptr, true);
  EXPECT_THAT(fleet.names(decision), ElementsAre("good"));
  ASSERT_EQ(decision.refused.size(), 4u);
  EXPECT_THAT(decision.refused[0].reason, HasSubstr("does not serve"));
  EXPECT_THAT(decision.refused[1].reason, HasSubstr("context of 100 tokens, the request may need 110"));
}

TEST(PolicyChain, SameSeedSameDecisionAndOtherSeedsSpread) {
  Fleet fleet;
  for (const char* name : {"a", "b", "c"}) fleet.add(name, Tier::kCentre);
  std::map<std::string, int> firsts;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    RequestFeatures request = a_request();
    request.seed = seed;
    const auto once = fleet.names(chain({}).decide(request, fleet.states, {}));
    EXPECT_EQ(once, fleet.names(chain({}).decide(request, fleet.states, {})));
    ++firsts[once[0]];
  }
  for (const auto& [name, times] : firsts) EXPECT_NEAR(times, 100, 40) << name;
}

TEST(PolicyChain, ErrorsNameThePlaceAndTheExpectation) {
  const auto error = [](std::vector<std::string> texts) { return PolicyChain::parse(texts).error().message; };
  EXPECT_THAT(error({"weighted", "wieghted"}), HasSubstr("gateway.policies[1] wieghted: expected one of rule"));
  EXPECT_THAT(error({"rule tokens_min=-1 use=edge"}), HasSubstr("tokens_min: expected an integer from 0"));
  EXPECT_THAT(error({"rule use=edge prefer=centre"}), HasSubstr("expected one of use, prefer and avoid"));
  EXPECT_THAT(error({"rule tokens_min=1"}), HasSubstr("found nothing"));
  EXPECT_THAT(error({"weighted colour=red"}), HasSubstr("colour: expected one of sticky"));
  EXPECT_THAT(error({"weighted sticky=yes"}), HasSubstr("expected true or false, found \"yes\""));
  EXPECT_THAT(error({"weighted sticky"}), HasSubstr("expected option=value"));
  EXPECT_THAT(error({"weighted sticky=true sticky=true"}), HasSubstr("given twice"));
  EXPECT_THAT(error({" "}), HasSubstr("expected the name of a policy"));
}

TEST(Weighted, SharesFollowTheWeights) {
  Fleet fleet;
  fleet.add("three", Tier::kCentre).weight = 3;
  fleet.add("one", Tier::kCentre).weight = 1;
  fleet.add("none", Tier::kCentre).weight = 0;
  const PolicyChain weighted = chain({"weighted"});
  std::map<std::string, int> firsts;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    RequestFeatures request = a_request();
    request.seed = seed;
    const auto names = fleet.names(weighted.decide(request, fleet.states, {}));
    ASSERT_EQ(names.size(), 2u);
    ++firsts[names[0]];
  }
  EXPECT_NEAR(firsts["three"], 3000, 120);
}

TEST(Weighted, StickySessionsStayAndANewUpstreamMovesOnlyItsShare) {
  Fleet fleet;
  for (const char* name : {"a", "b", "c"}) fleet.add(name, Tier::kCentre);
  const PolicyChain sticky = chain({"weighted sticky=true"});
  const auto choose = [&](int session) {
    RequestFeatures request = a_request();
    request.session = "s" + std::to_string(session);
    request.seed = static_cast<uint64_t>(session) * 7919;
    return fleet.names(sticky.decide(request, fleet.states, {}))[0];
  };
  std::vector<std::string> before;
  for (int session = 0; session < 1000; ++session) before.push_back(choose(session));
  fleet.add("d", Tier::kCentre);
  int moved = 0;
  for (int session = 0; session < 1000; ++session) {
    const std::string now = choose(session);
    if (now == before[static_cast<size_t>(session)]) continue;
    EXPECT_EQ(now, "d");
    ++moved;
  }
  EXPECT_NEAR(moved, 250, 60);
}

struct RuleCase {
  const char* rule;
  std::vector<std::string> matching, other;
};

TEST(Rule, EveryFeatureSelects) {
  Fleet fleet;
  fleet.add("edge1", Tier::kEdge);
  fleet.add("main", Tier::kCentre);
  RequestFeatures big = a_request();
  big.prompt_tokens = 9000;
  big.max_tokens = 4000;
  big.tenant = "free";
  big.model = "deepseek-r1";
  big.language = "zh";
  big.images = big.tools = true;
  big.priority = 5;
  big.headers = {{"x-class", "batch-nightly"}};
  RequestFeatures small = a_request();
  small.prompt_tokens = 10;
  small.max_tokens = 10;
  small.tenant = "gold";
  small.model = "qwen";
  small.language = "latin";
  for (const char* condition :
       {"tokens_min=8000", "max_tokens_min=2000", "tenant=fr*", "model=deepseek-*", "language=zh|ja", "images=true",
        "tools=true", "priority_min=1", "header=x-class:batch*"}) {
    const PolicyChain rule = chain({std::string("rule use=centre ") + condition});
    EXPECT_THAT(fleet.names(rule.decide(big, fleet.states, {})), ElementsAre("main")) << condition;
    EXPECT_EQ(rule.decide(small, fleet.states, {}).order.size(), 2u) << condition;
  }
  // Without max_tokens a request may be any length.
  small.max_tokens = 0;
  EXPECT_EQ(chain({"rule use=centre max_tokens_max=100"}).decide(small, fleet.states, {}).order.size(), 2u);
}

TEST(Explain, NamesTheChosenTheOthersAndTheLeftOut) {
  Fleet fleet;
  fleet.add("edge1", Tier::kEdge).context_tokens_max = 50;
  fleet.add("main", Tier::kCentre).price = {1, 2, 0};
  fleet.add("spare", Tier::kProvider);
  const RequestFeatures request = a_request();
  const Decision decision =
      chain({"rule avoid=provider", "least_predicted jitter=0"}).decide(request, fleet.states, {}, nullptr, true);
  const std::string text = explain_decision(request, fleet.states, decision);
  EXPECT_THAT(text, HasSubstr("about 100 prompt tokens, 50 expected"));
  EXPECT_THAT(text, HasSubstr("goes to main (decided by "));
  EXPECT_THAT(text, HasSubstr("1. main"));
  EXPECT_THAT(text, HasSubstr("last 1.010 s  $0.000200"));
  EXPECT_THAT(text, HasSubstr("2. spare"));
  EXPECT_THAT(text, HasSubstr("rule: avoided"));
  EXPECT_THAT(text, HasSubstr("-  edge1                context of 50 tokens"));
  EXPECT_THAT(explain_decision(request, fleet.states, {}), HasSubstr("nobody may take it"));
}

TEST(Rule, PreferAndAvoidOnlyReorder) {
  Fleet fleet;
  fleet.add("edge1", Tier::kEdge);
  fleet.add("main", Tier::kCentre);
  const RequestFeatures request = a_request();
  EXPECT_THAT(fleet.names(chain({"rule prefer=main"}).decide(request, fleet.states, {})), ElementsAre("main", "edge1"));
  EXPECT_THAT(fleet.names(chain({"rule avoid=main"}).decide(request, fleet.states, {})), ElementsAre("edge1", "main"));
}

}  // namespace
}  // namespace spillway::gateway
