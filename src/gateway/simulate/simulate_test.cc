// The simulator: its server against hand-made cases, its bookkeeping, and the published comparison of examples/hybrid.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gateway/simulate/server_model.h"
#include "gateway/simulate/simulator.h"

namespace spillway::gateway {
namespace {

using testing::HasSubstr;

constexpr const char* kFleet = R"(
timeout_s: 30
servers:
  a:
    tier: edge
    prefill_tokens_per_s: 1000
    decode_tokens_per_s: ["1:100", "2:50"]
    decode_while_prefilling: 0.5
    concurrency_max: 2
    queue_max: 2
    cache_tokens: 1000
    usd_per_hour: 36
    usd_per_million_output: 1000000
  b:
    tier: centre
    prefill_tokens_per_s: 1000
    decode_tokens_per_s: ["1:100"]
policies:
  only-a: ["rule use=a"]
  both: ["rule prefer=a"]
)";

FleetDescription fleet() { return parse_fleet(kFleet).value(); }

TraceRequest request(double at, int64_t prompt, int64_t output, int64_t prefix = -1, int64_t shared = 0) {
  return {at, prompt, output, prefix, shared, 0, "t"};
}

TEST(ServerModel, OneRequestTakesPrefillAndDecode) {
  const FleetDescription f = fleet();
  const auto outcome = simulate({request(0, 500, 101)}, f, f.policies[0]);
  EXPECT_NEAR(outcome.first_token_s.mean, 0.5, 1e-6);
  EXPECT_NEAR(outcome.latency_s.mean, 0.5 + 100 / 100.0, 1e-6);
  EXPECT_NEAR(outcome.servers[0].usd_tokens, 101, 1e-9);
  EXPECT_NEAR(outcome.servers[0].usd_hours, 36 * 1.5 / 3600, 1e-6);
  EXPECT_EQ(outcome.servers[1].usd_hours, 0);  // never used
}

TEST(ServerModel, StreamsShareAndPromptsSlowThem) {
  const FleetDescription f = fleet();
  // The second prompt takes 0.5 s, during which the first stream runs at half of 100: 25 tokens instead of 50. Then
  // both run at 50 until the second ends with 26 tokens, after another 0.5 s (25 each); the first has 100 - 50 = 50
  // left.
  const auto outcome = simulate({request(0, 100, 101), request(0.1, 500, 26)}, f, f.policies[0]);
  EXPECT_NEAR(outcome.latency_s.mean, ((0.1 + 0.5 + 0.5 + 0.5) + (0.5 + 0.5)) / 2, 1e-6);
}

TEST(ServerModel, SharedPrefixesAreComputedOnce) {
  const FleetDescription f = fleet();
  const auto outcome = simulate({request(0, 500, 2, 7, 400), request(5, 500, 2, 7, 400)}, f, f.policies[0]);
  EXPECT_NEAR(outcome.first_token_s.mean, (0.5 + 0.1) / 2, 1e-6);
  EXPECT_DOUBLE_EQ(outcome.cache_hit, 0.4);
}

TEST(Simulator, AFullServerRefusesOrSpills) {
  const FleetDescription f = fleet();
  std::vector<TraceRequest> burst;
  for (int i = 0; i < 10; ++i) burst.push_back(request(0, 100, 100));
  const auto alone = simulate(burst, f, f.policies[0]);
  EXPECT_EQ(alone.answered, 4);  // two run, two wait
  EXPECT_EQ(alone.refused, 6);
  const auto both = simulate(burst, f, f.policies[1]);
  EXPECT_EQ(both.answered, 10);
  EXPECT_EQ(both.refused, 0);
}

TEST(Simulator, ACrashMovesItsRequestsOn) {
  FleetDescription f = fleet();
  f.servers[0].down = {{1.0, 20.0}};
  const auto outcome = simulate({request(0, 500, 1001), request(5, 100, 2), request(22, 100, 2)}, f, f.policies[1]);
  EXPECT_EQ(outcome.answered, 3);
  EXPECT_EQ(outcome.servers[0].answered, 1);  // the last, after its return
  EXPECT_GE(outcome.retried, 1);
}

TEST(Simulator, HigherPriorityWaitsLessAndTheLateAreRefused) {
  FleetDescription f = fleet();
  f.servers[0].info.concurrency_max = 1;
  f.servers[0].queue_max = 100;
  f.timeout_s = 5;
  std::vector<TraceRequest> requests;
  for (int i = 0; i < 10; ++i) {
    requests.push_back(request(0.001 * i, 100, 101));
    requests.back().priority = i == 9 ? 1 : 0;
    requests.back().tenant = i == 9 ? "gold" : "t";
  }
  const auto outcome = simulate(requests, f, f.policies[0]);
  EXPECT_EQ(outcome.answered + outcome.timed_out, 10);
  EXPECT_GT(outcome.timed_out, 3);  // a second each, five seconds
  EXPECT_EQ(outcome.refused, 0);
}

TEST(Simulator, SameInputsSameNumbers) {
  const FleetDescription f = fleet();
  std::vector<TraceRequest> requests;
  for (int i = 0; i < 200; ++i) requests.push_back(request(0.3 * i, 50 + i, 10 + i % 40, i % 5, 40));
  EXPECT_EQ(outcomes_json({simulate(requests, f, {"x", {"least_predicted", "prefix_affinity"}})}),
            outcomes_json({simulate(requests, f, {"x", {"least_predicted", "prefix_affinity"}})}));
}

TEST(Simulator, SilentServersAreNotTakenForIdle) {
  FleetDescription f = fleet();
  for (auto& server : f.servers) server.info.concurrency_max = 8;
  f.servers[0].silent = {{0.0, 1000.0}};
  std::vector<TraceRequest> requests;
  for (int i = 0; i < 200; ++i) requests.push_back(request(0.5 * i, 100, 20));
  const auto outcome = simulate(requests, f, {"x", {"least_predicted"}});
  EXPECT_EQ(outcome.answered, 200);
  EXPECT_LE(outcome.servers[0].answered, 150);
}

// The claim of docs/routing.md and examples/hybrid/README.md.
TEST(Hybrid, FourEdgeNodesAndACentreAgainstTheCentreAlone) {
  const std::string folder = std::string(SPILLWAY_SOURCE_DIR) + "/examples/hybrid/";
  const auto trace = load_trace(folder + "trace.csv");
  const auto description = load_fleet(folder + "fleet.yaml");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_TRUE(description.ok()) << description.error().message;
  ASSERT_EQ(description->policies.front().name, "centre-only");
  ASSERT_EQ(description->policies.back().name, "hybrid");
  const auto centre = simulate(*trace, *description, description->policies.front());
  const auto hybrid = simulate(*trace, *description, description->policies.back());
  EXPECT_EQ(centre.answered, centre.requests);
  EXPECT_EQ(hybrid.answered, hybrid.requests);
  EXPECT_NEAR(centre.latency_s.mean, 1.259, 0.02);
  EXPECT_NEAR(hybrid.latency_s.mean, 0.326, 0.02);
  EXPECT_LE(hybrid.latency_s.mean, 0.380);
  EXPECT_GE(centre.latency_s.mean, 1.2);
  EXPECT_LE(hybrid.usd / centre.usd, 1 - 0.42);
}

TEST(Fleet, ErrorsNameTheLine) {
  const auto error = [](const std::string& yaml) { return parse_fleet(yaml).error().message; };
  EXPECT_THAT(error("servers:\n  a:\n    tier: moon\n"),
              HasSubstr("3:5: servers.a.tier: expected centre, edge or provider"));
  EXPECT_THAT(error("servers:\n  a:\n    speed: 3\n"), HasSubstr("no such field"));
  EXPECT_THAT(error("servers:\n  a:\n    tier: edge\n"), HasSubstr("expected prefill_tokens_per_s"));
  EXPECT_THAT(error("servers:\n  a:\n    decode_tokens_per_s: [\"2:5\", \"1:5\"]\n"), HasSubstr("rising streams"));
  EXPECT_THAT(error("servers:\n  a:\n    down: [\"5-4\"]\n"), HasSubstr("rising times"));
  EXPECT_THAT(error("policies:\n  x: [\"nonsense\"]\n"), HasSubstr("expected one of rule"));
  EXPECT_THAT(error("timeout_s: x\n"), HasSubstr("expected a number"));
  EXPECT_THAT(error("unknown: 1\n"), HasSubstr("expected servers, policies"));
}

TEST(Trace, ErrorsNameTheLine) {
  const std::string header = "arrival_s,prompt_tokens,output_tokens,prefix_id,prefix_tokens,priority,tenant\n";
  const auto error = [&](const std::string& rows) { return parse_trace(header + rows).error().message; };
  EXPECT_THAT(error("0,1,1,-1,0,0\n"), HasSubstr("line 2: expected 7 fields, found 6"));
  EXPECT_THAT(error("0,1,x,-1,0,0,t\n"), HasSubstr("line 2: output_tokens: expected a number"));
  EXPECT_THAT(error("5,1,1,-1,0,0,t\n4,1,1,-1,0,0,t\n"), HasSubstr("line 3: arrival_s: expected at least 5"));
  EXPECT_THAT(error("0,10,1,3,11,0,t\n"), HasSubstr("prefix_tokens: expected a number from 0 to 10"));
  EXPECT_THAT(error(""), HasSubstr("at least one request"));
  EXPECT_THAT(parse_trace("a,b\n").error().message, HasSubstr("line 1: expected \"arrival_s"));
  const auto good = parse_trace(header + "0.5,10,2,3,4,-1,acme\r\n");
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good->front().tenant, "acme");
}

}  // namespace
}  // namespace spillway::gateway
