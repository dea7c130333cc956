#include "gateway/policy_targets.h"

#include <gmock/gmock.h>

namespace spillway::gateway {
namespace {

using testing::HasSubstr;

std::string problem(std::vector<std::string> policies) {
  std::vector<UpstreamOptions> upstreams(3);
  upstreams[0].info.name = "edge-1";
  upstreams[1].info.name = "vision";
  upstreams[2].info.name = "centre";
  upstreams[2].discovery = UpstreamOptions::Discovery::kDns;
  const Status checked = check_policy_targets(policies, upstreams);
  return checked.ok() ? "" : checked.error().message;
}

TEST(PolicyTargets, AreUpstreamsTiersOrPatterns) {
  EXPECT_EQ(
      problem({"rule images=true use=vision", "canary upstream=edge-1", "rule tools=true avoid=edge|vis*",
               "rule prefer=centre-10.0.0.1", "rule use=centre*", "rule use=centre-*|provider", "least_predicted"}),
      "");
}

TEST(PolicyTargets, WhoIsNotThereIsNamed) {
  EXPECT_EQ(
      problem({"least_loaded", "rule images=true use=visoin"}),
      "gateway.policies[1] rule: use: expected an upstream (edge-1, vision, centre-*) or a tier, found \"visoin\"");
  EXPECT_THAT(problem({"shadow upstream=trial"}), HasSubstr("gateway.policies[0] shadow: upstream"));
  EXPECT_THAT(problem({"rule use=vision|vison"}), HasSubstr("found \"vison\""));
  EXPECT_THAT(problem({"rule use=edge-2*"}), HasSubstr("edge-2"));
}

TEST(PolicyTargets, TheTierCentreIsNotTheUpstream) {
  EXPECT_EQ(problem({"rule use=centre"}), "");  // the tier
  EXPECT_THAT(problem({"canary upstream=centrum"}), HasSubstr("centrum"));
}

TEST(Aliases, StandForAModelThatSomebodyHas) {
  std::vector<UpstreamOptions> upstreams(2);
  upstreams[0].info.models = {"r1", "v3"};
  upstreams[1].info.models = {"r1"};
  EXPECT_TRUE(check_aliases({{"gpt-4o", "v3"}}, upstreams).ok());
  EXPECT_EQ(check_aliases({{"gpt-4o", "v4"}}, upstreams).error().message,
            "gateway.aliases: gpt-4o: expected a model of the upstreams' (r1, v3), found \"v4\"");
  EXPECT_THAT(check_aliases({{"a", "b"}, {"b", "r1"}}, upstreams).error().message, HasSubstr("itself an alias"));
  upstreams[1].info.models.clear();  // whoever names none has any
  EXPECT_TRUE(check_aliases({{"gpt-4o", "v4"}}, upstreams).ok());
}

}  // namespace
}  // namespace spillway::gateway
