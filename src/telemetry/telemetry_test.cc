// Trace context, spans, objectives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <map>
#include <set>

#include "metrics/metrics.h"
#include "metrics/registry.h"
#include "telemetry/objectives.h"
#include "telemetry/span_exporter.h"

namespace spillway::telemetry {
namespace {

namespace json = boost::json;
constexpr const char* kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

metrics::Histogram slow("test_slow_seconds", "Test.", {1, 2});

TEST(TraceContext, IsTakenOverOrBegun) {
  const TraceContext taken = trace_context(kParent);
  EXPECT_EQ(taken.trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(taken.parent_id, "b7ad6b7169203331");
  EXPECT_NE(taken.span_id, taken.parent_id);
  EXPECT_TRUE(taken.sampled);
  EXPECT_EQ(taken.traceparent(), "00-0af7651916cd43dd8448eb211c80319c-" + taken.span_id + "-01");
  EXPECT_FALSE(trace_context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").sampled);
  EXPECT_FALSE(trace_context("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").parent_id.empty());
  for (const char* broken : {"", "00", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
                             "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                             "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                             "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                             "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"}) {
    const TraceContext begun = trace_context(broken);
    EXPECT_TRUE(begun.parent_id.empty()) << broken;
    EXPECT_EQ(begun.trace_id.size(), 32U);
    EXPECT_NE(begun.trace_id, "0af7651916cd43dd8448eb211c80319c");
  }
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(trace_context("").trace_id);
  EXPECT_EQ(ids.size(), 1000U);
}

RequestRecord sample() {
  RequestRecord request;
  request.id = "req-1";
  request.trace = trace_context(kParent);
  request.route = "/v1/chat/completions";
  request.operation = "chat";
  request.model = "r1";
  request.answered_by = "r1-int8";
  request.finish_reason = "stop";
  request.outcome = "ok";
  request.status = 200;
  request.started_unix_ns = 1700000000000000001;
  request.duration_s = 0.5;
  request.first_token_s = 0.125;
  request.prompt_tokens = 12;
  request.output_tokens = 34;
  return request;
}

TEST(Spans, HaveTheGenAiNames) {
  SpanExporterOptions options;
  options.service_version = "1.2";
  RequestRecord failed = sample();
  failed.status = 503;
  failed.outcome = "overloaded";
  const json::value body = json::parse(otlp_json({sample(), failed}, options));
  const json::value& resource = body.at("resourceSpans").at(0);
  const json::array& spans = resource.at("scopeSpans").at(0).at("spans").as_array();
  ASSERT_EQ(spans.size(), 2U);
  const json::value& span = spans[0];
  EXPECT_EQ(span.at("name"), "chat r1");
  EXPECT_EQ(span.at("traceId"), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(span.at("parentSpanId"), "b7ad6b7169203331");
  EXPECT_EQ(span.at("startTimeUnixNano"), "1700000000000000001");
  EXPECT_EQ(span.at("endTimeUnixNano"), "1700000000500000001");
  EXPECT_EQ(span.at("events").at(0).at("timeUnixNano"), "1700000000125000001");
  EXPECT_EQ(span.at("status").at("code"), 1);
  EXPECT_EQ(spans[1].at("status").at("code"), 2);
  std::map<std::string, json::value> attributes;
  for (const json::value& one : span.at("attributes").as_array()) {
    attributes[one.at("key").as_string().c_str()] = one.at("value");
  }
  EXPECT_EQ(attributes["gen_ai.operation.name"].at("stringValue"), "chat");
  EXPECT_EQ(attributes["gen_ai.response.model"].at("stringValue"), "r1-int8");
  EXPECT_EQ(attributes["gen_ai.usage.input_tokens"].at("intValue"), "12");
  EXPECT_EQ(attributes["gen_ai.response.finish_reasons"].at("arrayValue").at("values").at(0).at("stringValue"), "stop");
  EXPECT_FALSE(attributes.contains("error.type"));
}

TEST(Spans, OfAttemptsAreAClients) {
  RequestRecord attempt = sample();
  attempt.route.clear();
  attempt.provider = "deepseek";
  attempt.status = 429;
  attempt.outcome = "rate_limited";
  RequestRecord unreached = attempt;
  unreached.status = 0;
  const json::value body = json::parse(otlp_json({sample(), attempt, unreached}, {}));
  const json::array& spans = body.at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").as_array();
  EXPECT_EQ(spans[0].at("kind"), 2);
  EXPECT_EQ(spans[1].at("kind"), 3);
  EXPECT_EQ(spans[1].at("status").at("code"), 2);
  const std::string text = json::serialize(spans[1]);
  EXPECT_THAT(text, testing::HasSubstr(R"({"key":"gen_ai.provider.name","value":{"stringValue":"deepseek"}})"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("http.route")));
  EXPECT_THAT(json::serialize(spans[2]), testing::Not(testing::HasSubstr("http.response.status_code")));
}

TEST(Spans, OfGrpcHaveItsNamesAndTextIsEscaped) {
  RequestRecord request = sample();
  request.protocol = RequestRecord::Protocol::kGrpc;
  request.route = "/spillway.v1.Chat/Stream";
  request.grpc_code = 8;
  request.status = 429;
  request.outcome = "rate_limit";
  request.model = "a \"model\"\n\x01";
  const json::value body = json::parse(otlp_json({request}, {}));
  const json::value& span = body.at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").at(0);
  EXPECT_EQ(span.at("name").as_string(), "chat " + request.model);
  std::map<std::string, json::value> attributes;
  for (const json::value& one : span.at("attributes").as_array()) {
    attributes[std::string(one.at("key").as_string())] = one.at("value");
  }
  EXPECT_EQ(attributes["rpc.service"].at("stringValue"), "spillway.v1.Chat");
  EXPECT_EQ(attributes["rpc.method"].at("stringValue"), "Stream");
  EXPECT_EQ(attributes["rpc.grpc.status_code"].at("intValue"), "8");
  EXPECT_EQ(attributes["error.type"].at("stringValue"), "rate_limit");
  EXPECT_FALSE(attributes.contains("http.route"));
}

double gauge(const char* name, const std::vector<std::string>& labels) {
  double found = -1;
  metrics::Registry::instance().find(name)->read([&](const metrics::Reading& reading) {
    if (reading.label_values == labels) found = reading.value;
  });
  return found;
}

TEST(Objectives, BurnIsTheBadShareOverTheAllowedOne) {
  Objectives objectives({0.99, 1.0});
  TimePoint now = std::chrono::steady_clock::now();
  objectives.refresh(now);
  RequestRecord good = sample(), bad = sample(), late = sample(), theirs = sample(), left = sample();
  bad.status = 500;
  late.first_token_s = 1.5;
  theirs.status = 429;
  left.outcome = "cancelled";
  for (int i = 0; i < 94; ++i) objectives.record(good);
  for (int i = 0; i < 4; ++i) objectives.record(bad);
  objectives.record(late);
  objectives.record(left);
  for (int i = 0; i < 50; ++i) objectives.record(theirs);
  objectives.refresh(now += std::chrono::seconds(10));
  EXPECT_NEAR(gauge("spillway_slo_error_budget_burn", {"5m"}), 5, 1e-9);
  EXPECT_NEAR(gauge("spillway_slo_error_budget_burn", {"24h"}), 5, 1e-9);
  for (int i = 0; i < 60; ++i) objectives.refresh(now += std::chrono::seconds(10));
  EXPECT_EQ(gauge("spillway_slo_error_budget_burn", {"5m"}), 0);
  EXPECT_NEAR(gauge("spillway_slo_error_budget_burn", {"1h"}), 5, 1e-9);
  for (int i = 0; i < 9000; ++i) objectives.refresh(now += std::chrono::seconds(10));
  EXPECT_EQ(gauge("spillway_slo_error_budget_burn", {"24h"}), 0);
}

TEST(Objectives, QuantilesOfTheLastMinutes) {
  Objectives objectives({});
  TimePoint now = std::chrono::steady_clock::now();
  objectives.refresh(now);
  for (int i = 1; i <= 1000; ++i) slow->observe(0.001 * i);
  objectives.refresh(now += std::chrono::seconds(10));
  EXPECT_NEAR(gauge("spillway_latency_quantile_seconds", {"test_slow_seconds", "50"}), 0.5, 0.05);
  EXPECT_NEAR(gauge("spillway_latency_quantile_seconds", {"test_slow_seconds", "99"}), 0.99, 0.09);
  for (int i = 0; i < 40; ++i) objectives.refresh(now += std::chrono::seconds(10));
  for (int i = 0; i < 10; ++i) slow->observe(64);
  objectives.refresh(now += std::chrono::seconds(10));
  EXPECT_NEAR(gauge("spillway_latency_quantile_seconds", {"test_slow_seconds", "50"}), 64, 6);
}

}  // namespace
}  // namespace spillway::telemetry
