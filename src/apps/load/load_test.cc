#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <mutex>

#include "apps/load/load_generator.h"
#include "net/http_server.h"
#include "net/sse.h"

namespace spillway::apps {
namespace {

using testing::HasSubstr;

TEST(LatencyHistogram, PercentilesAreRightToOnePercent) {
  LatencyHistogram histogram;
  for (int i = 1; i <= 1000; ++i) histogram.add(i * 1e-3);
  const Percentiles of = histogram.percentiles();
  EXPECT_EQ(of.count, 1000u);
  EXPECT_NEAR(of.p50, 0.5, 0.005);
  EXPECT_NEAR(of.p90, 0.9, 0.009);
  EXPECT_NEAR(of.p99, 0.99, 0.0099);
  EXPECT_DOUBLE_EQ(of.max, 1.0);
  EXPECT_NEAR(of.mean, 0.5005, 1e-9);
  EXPECT_EQ(LatencyHistogram().percentiles().count, 0u);
}

TEST(LoadTrace, ReadsAndRefuses) {
  const auto trace =
      parse_trace("{\"at_s\":0,\"prompt\":\"a\",\"max_tokens\":2}\n\n{\"at_s\":1.5,\"prompt\":\"b\",\"max_tokens\":3}");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 2u);
  EXPECT_EQ((*trace)[1].prompt, "b");
  EXPECT_EQ((*trace)[1].at_s, 1.5);
  EXPECT_THAT(parse_trace("{\"at_s\":0,\"prompt\":\"a\",\"max_tokens\":1}\nx").error().message, HasSubstr("line 2"));
  EXPECT_FALSE(parse_trace("").ok());
  EXPECT_FALSE(parse_trace("{\"at_s\":-1,\"prompt\":\"a\",\"max_tokens\":1}").ok());
  EXPECT_FALSE(parse_trace("{\"at_s\":1,\"prompt\":\"a\",\"max_tokens\":0}").ok());
  EXPECT_FALSE(
      parse_trace("{\"at_s\":1,\"prompt\":\"a\",\"max_tokens\":1}\n{\"at_s\":0,\"prompt\":\"a\",\"max_tokens\":1}")
          .ok());
}

// A server of known answers: three pieces and a usage of 5 tokens; every third request refused, one cut.
class Peer {
 public:
  Peer() {
    net::HttpServerOptions options;
    options.address = "127.0.0.1";
    auto server = net::HttpServer::start(options, [this](net::HttpRequest request, net::ResponseWriter& out) {
      return answer(std::move(request), out);
    });
    EXPECT_TRUE(server.ok());
    server_ = std::move(server).value();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()) + "/v1"; }
  std::vector<std::string> prompts() {
    std::lock_guard lock(mutex_);
    return prompts_;
  }

 private:
  boost::asio::awaitable<void> answer(net::HttpRequest request, net::ResponseWriter& out) {
    if (request.path == "/v1/models") {
      co_await out.send(200, {}, R"({"object":"list","data":[{"id":"tiny"},{"id":"other"}]})");
      co_return;
    }
    EXPECT_EQ(request.path, "/v1/chat/completions");
    const auto body = boost::json::parse(request.body).as_object();
    EXPECT_EQ(body.at("model").as_string(), "tiny");
    EXPECT_TRUE(body.at("stream").as_bool());
    const int turn = note(std::string(body.at("messages").at(0).at("content").as_string()));
    if (turn % 3 == 0) {
      co_await out.send(429, net::Headers::of("Retry-After", "2"), "{}");
      co_return;
    }
    co_await out.start_stream(200, {});
    std::string events;
    net::append_sse_comment(events, "keep-alive");
    for (const char* piece :
         {"\"role\":\"assistant\"", "\"reasoning_content\":\"a\"", "\"content\":\"b\"", "\"content\":\"c\""}) {
      net::append_sse_event(events, std::string("{\"choices\":[{\"delta\":{") + piece + "}}]}");
    }
    net::append_sse_event(events, "{\"choices\":[],\"usage\":{\"completion_tokens\":5}}");
    if (turn != 10) net::append_sse_event(events, "[DONE]");
    co_await out.write(events);
    co_await out.end();
  }

  int note(std::string prompt) {
    std::lock_guard lock(mutex_);
    prompts_.push_back(std::move(prompt));
    return int(prompts_.size());
  }

  std::mutex mutex_;
  std::vector<std::string> prompts_;
  std::unique_ptr<net::HttpServer> server_;  // last: its threads use the rest
};

TEST(Load, CountsWhatHappenedToEachRequest) {
  Peer peer;
  LoadOptions options;
  options.url = peer.url();
  options.clients = 1;
  options.requests_max = 12;
  const auto report = run_load(options);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->sent, 12);
  EXPECT_EQ(report->refused, 4);
  EXPECT_EQ(report->refused_bare, 0);
  EXPECT_EQ(report->retry_after_max_s, 2);
  EXPECT_EQ(report->failed, 1);
  EXPECT_EQ(report->errors.at("the stream ended without [DONE]"), 1);
  EXPECT_EQ(report->completed, 7);
  EXPECT_EQ(report->ttft.count, 7u);
  EXPECT_EQ(report->itl.count, 8u * 2);
  EXPECT_EQ(report->tokens, 8 * 5);
  EXPECT_EQ(report->statuses.at(429), 4);
  EXPECT_THAT(render_text(*report, options), HasSubstr("completed 7   refused 4   failed 1"));
  EXPECT_EQ(boost::json::parse(render_json(*report, options)).at("refused").as_int64(), 4);
}

TEST(Load, ATraceIsPlayedAndPoissonArrivalsAreSeeded) {
  Peer peer;
  LoadOptions options;
  options.url = peer.url();
  options.trace = {{0.0, "first", 4}, {0.001, "second", 4}};
  const auto traced = run_load(options);
  ASSERT_TRUE(traced.ok());
  EXPECT_EQ(traced->completed, 2);
  EXPECT_THAT(peer.prompts(), testing::UnorderedElementsAre("first", "second"));

  options.trace.clear();
  options.rate_per_s = 2000;
  options.requests_max = 40;
  const auto poisson = run_load(options);
  ASSERT_TRUE(poisson.ok());
  EXPECT_EQ(poisson->sent, 40);
  EXPECT_EQ(poisson->completed + poisson->refused + poisson->failed, 40);
}

TEST(Load, NoServerIsAFailureOfEachRequestAndNoOptionsAreAnError) {
  LoadOptions options;
  {
    Peer gone;
    options.url = gone.url();
  }
  EXPECT_FALSE(run_load(options).ok()) << "neither rate, nor trace, nor clients";
  options.clients = 2;
  EXPECT_THAT(run_load(options).error().message, HasSubstr("cannot connect"))
      << "no model is named, and none can be asked";
  options.model = "some";
  options.requests_max = 4;
  const auto report = run_load(options);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->failed, 4);
  EXPECT_EQ(report->goodput_per_s, 0);
  EXPECT_THAT(report->errors.begin()->first, HasSubstr("cannot connect"));
  options.url = "not a url";
  EXPECT_FALSE(run_load(options).ok());
}

}  // namespace
}  // namespace spillway::apps
