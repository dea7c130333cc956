// The console's pure parts: the latency map and the verdict.
#include <gtest/gtest.h>

#include "server/console/latency_map.h"
#include "server/console/verdict.h"

namespace spillway::server {
namespace {

TEST(LatencyMap, BucketsAndQuantiles) {
  LatencyMap map;
  map.record(0.0005);
  map.record(LatencyMap::bound(5));         // on the bound: inclusive
  map.record(LatencyMap::bound(5) * 1.01);  // past it
  map.record(1e9);
  EXPECT_EQ(map.columns(), 0u);
  EXPECT_EQ(map.count(10), 0u) << "a column counts when its second has ended";
  map.roll();
  const auto columns = map.newest(5);
  ASSERT_EQ(columns.size(), 1u);
  EXPECT_EQ(columns[0][0], 1u);
  EXPECT_EQ(columns[0][5], 1u);
  EXPECT_EQ(columns[0][6], 1u);
  EXPECT_EQ(columns[0][LatencyMap::kBuckets - 1], 1u);
}

TEST(LatencyMap, QuantileLiesInItsBucketAndOldColumnsGo) {
  LatencyMap map;
  for (int i = 0; i < 900; ++i) map.record(0.1);
  for (int i = 0; i < 100; ++i) map.record(3);
  map.roll();
  EXPECT_NEAR(map.quantile(0.5, 10), 0.1, 0.05);
  EXPECT_NEAR(map.quantile(0.99, 10), 3, 1.5);
  EXPECT_EQ(map.count(10), 1000u);
  for (int i = 0; i < LatencyMap::kColumns; ++i) map.roll();
  EXPECT_EQ(map.count(1000), 0u);
  EXPECT_EQ(map.quantile(0.5, 10), 0);
}

Signals busy() {
  Signals s;
  s.has_engine = true;
  s.running = 8;
  s.waiting = 20;
  s.predicted_wait_s = 5;
  s.step_s = 0.1;
  s.rows = 8;
  s.step_bytes = 8e9;
  s.step_flops = 1e10;
  s.bandwidth = 1e11;
  s.flops_peak = 1e12;
  s.time = {0.6, 0.1, 0.3, 0, 0, 50};
  return s;
}

TEST(Verdict, NamesTheResourceThatBinds) {
  Signals s = busy();
  EXPECT_EQ(judge(s).resource, "memory_bandwidth");
  EXPECT_NEAR(judge(s).efficiency, 0.8, 1e-9);
  s.prefill_share = 0.9;
  EXPECT_EQ(judge(s).resource, "compute");
  s = busy();
  s.blocked = true;
  s.pages_used = 0.99;
  EXPECT_EQ(judge(s).resource, "kv_pages");
  s.pages_used = 0.5;
  s.slots_used = 1;
  EXPECT_EQ(judge(s).resource, "slots");
  s = busy();
  s.cpu_of_others = 0.5;
  EXPECT_EQ(judge(s).resource, "host_cpu");
  s = busy();
  s.step_s = 2;  // far above both floors
  EXPECT_EQ(judge(s).resource, "overhead");
}

TEST(Verdict, StatesBeforeLoad) {
  Signals s;
  EXPECT_EQ(judge(s).resource, "idle");
  s.upstreams = s.upstreams_down = 2;
  EXPECT_EQ(judge(s).resource, "upstreams");
  s.stalled = true;
  EXPECT_EQ(judge(s).resource, "stalled");
  s.loading = true;
  EXPECT_EQ(judge(s).resource, "loading");
  s = Signals{};
  s.upstreams = 3;
  s.time = {0, 0, 0, 0.9, 0.1, 10};
  EXPECT_EQ(judge(s).resource, "upstream_time");
  EXPECT_EQ(judge(s).severity, Verdict::Severity::kBusy);
}

}  // namespace
}  // namespace spillway::server
