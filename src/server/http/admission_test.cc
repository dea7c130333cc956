// What happens around generations: refusals, keep-alive comments, disconnects, deadlines, priorities, drain, loading.
#include <gmock/gmock.h>

#include "server/server_fixture_for_test.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Reason = engine::Refusal::Reason;

class AdmissionTest : public ServerTest {
 protected:
  static std::string streamed() { return kChat + R"(,"stream":true})"; }
};

TEST_F(AdmissionTest, FullQueueIs429WithRetryAfter) {
  engine::Refusal refusal;
  refusal.reason = Reason::kQueueRequests;
  refusal.retry_after_s = 2.3;
  refusal.predicted_wait_s = 7.5;
  refusal.message = "the bound is 10 requests";  // a clause, as the engine says it
  model_.engine->refusal = refusal;
  start();
  for (const char* path : {"/v1/chat/completions", "/v1/messages"}) {
    const std::string body =
        std::string(R"({"model":"tiny-r1","max_tokens":9,"messages":[{"role":"user","content":"x"}]})");
    const Answer answer = post(path, body);
    EXPECT_EQ(answer.status, 429) << answer.body;
    EXPECT_EQ(answer.headers.value_or("Retry-After", ""), "3");
    EXPECT_THAT(answer.body, HasSubstr("The bound is 10 requests. The predicted wait is 7.5 s"));
  }
}

TEST_F(AdmissionTest, RefusedFromTheStateBeforeParsing) {
  model_.engine->reported.waiting = 5;
  ServerOptions options;
  options.admission.queue_requests_max = 5;
  start(std::move(options));
  const Answer answer = post("/v1/chat/completions", "this is not even JSON");
  EXPECT_EQ(answer.status, 429);
  EXPECT_TRUE(answer.headers.contains("Retry-After"));
  EXPECT_EQ(model_.engine->submitted(), 0u);
}

TEST_F(AdmissionTest, PredictedWaitOverTheBoundIsRefused) {
  model_.engine->reported.predicted_wait_s = 75;
  start();
  const Answer answer = post("/v1/chat/completions", kChat + "}");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.headers.value_or("Retry-After", ""), "15");
}

TEST_F(AdmissionTest, StalledEngineIs503AndNotReady) {
  model_.engine->reported.seconds_since_progress = 11;
  start();
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 503);
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_THAT(get("/health").body, HasSubstr(R"("status":"stalled")"));
  EXPECT_EQ(get("/health/live").status, 200);
}

TEST_F(AdmissionTest, AFailedDeviceIsNotReady) {
  std::atomic<bool> failed = false;
  ServerOptions options;
  options.device_fault = [&] { return failed ? std::string("GPU 0 (GPU-0) reported XID 79") : std::string(); };
  start(std::move(options));
  EXPECT_EQ(get("/health/ready").status, 200);
  failed = true;
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_EQ(get("/v2/health/ready").status, 503);
  const Answer health = get("/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr(R"("status":"device_failed","reason":"GPU 0 (GPU-0) reported XID 79")"));
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 200);  // who asks all the same is answered while it can
}

TEST_F(AdmissionTest, WillNeverFitIs400) {
  engine::Refusal refusal;
  refusal.reason = Reason::kTooLong;
  refusal.message = "2000 tokens, the cache has 1000.";
  model_.engine->refusal = refusal;
  start();
  const Answer answer = post("/v1/chat/completions", kChat + "}");
  EXPECT_EQ(answer.status, 400);
  EXPECT_FALSE(answer.headers.contains("Retry-After"));
}

TEST_F(AdmissionTest, KeepAliveCommentsWhileQueued) {
  model_.engine->hold = true;
  ServerOptions options;
  options.keep_alive_interval = std::chrono::milliseconds(20);
  start(std::move(options));
  auto client = open("/v1/chat/completions", streamed());
  EXPECT_THAT(client->read_until(": keep-alive\n\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(client->read_until(": keep-alive\n\n"), ::testing::Not(HasSubstr("data:")));
  model_.engine->release();
  EXPECT_THAT(client->read_until("[DONE]"), HasSubstr("\"finish_reason\":\"stop\""));
}

TEST_F(AdmissionTest, WholeAnswersTrickleOnlyWhenToldTo) {
  model_.engine->hold = true;
  ServerOptions options;
  options.keep_alive_interval = std::chrono::milliseconds(20);
  options.trickle = true;
  start(std::move(options));
  auto client = open("/v1/chat/completions", kChat + "}");
  EXPECT_THAT(client->read_until("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  client->read_until("1\r\n\n\r\n");
  client->read_until("1\r\n\n\r\n");
  model_.engine->release();
  EXPECT_THAT(client->read_until("0\r\n\r\n"), HasSubstr("The answer is 42."));
}

TEST_F(AdmissionTest, DisconnectCancelsStreamedAndWhole) {
  model_.engine->hold = true;
  start();
  auto streaming = open("/v1/chat/completions", streamed());
  auto whole = open("/v1/chat/completions", kChat + "}");
  auto queued = open("/v1/chat/completions", kChat + R"(,"n":2})");
  eventually([&] { return model_.engine->live() == 4; });
  model_.engine->release(1);
  streaming->read_until("data:");
  streaming.reset();
  eventually([&] { return model_.engine->cancelled() == 1; });
  whole.reset();
  eventually([&] { return model_.engine->cancelled() == 2; });
  queued.reset();
  eventually([&] { return model_.engine->cancelled() == 4; });
  eventually([&] { return server_->requests_in_flight() == 0; });
}

TEST_F(AdmissionTest, DeadlineAndPriorityReachTheEngine) {
  start();
  const TimePoint before = std::chrono::steady_clock::now();
  post("/v1/chat/completions", kChat + "}", {{"X-Request-Deadline", "60000"}, {"X-Priority", "high"}});
  const engine::Request& by_header = *model_.engine->request(0).request;
  EXPECT_GT(by_header.deadline, before + std::chrono::seconds(59));
  EXPECT_LT(by_header.deadline, before + std::chrono::seconds(120));
  EXPECT_EQ(by_header.priority, engine::Priority::kHigh);
  post("/v1/chat/completions", kChat + R"(,"deadline_ms":60000,"priority":"low"})");
  const engine::Request& by_field = *model_.engine->request(1).request;
  EXPECT_LT(by_field.deadline, TimePoint::max());
  EXPECT_EQ(by_field.priority, engine::Priority::kLow);
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}", {{"X-Request-Deadline", "soon"}}).status, 400);
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}", {{"X-Priority", "urgent"}}).status, 400);
}

TEST_F(AdmissionTest, PassedDeadlineIs504OrInBand) {
  model_.engine->hold = true;
  start();
  auto queued = open("/v1/chat/completions", streamed());
  eventually([&] { return model_.engine->live() == 1; });
  model_.engine->finish_all(engine::FinishReason::kDeadline);
  EXPECT_THAT(queued->read_response(), StartsWith("HTTP/1.1 504"));
  auto running = open("/v1/chat/completions", streamed());
  eventually([&] { return model_.engine->live() == 1; });
  model_.engine->release(3);
  running->read_until("reasoning_content");
  model_.engine->finish_all(engine::FinishReason::kDeadline);
  const std::string rest = running->read_until("[DONE]");
  EXPECT_THAT(rest, HasSubstr("deadline_exceeded"));
}

TEST_F(AdmissionTest, AnswersHealthWhileLoading) {
  start({}, false);
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_THAT(get("/health").body, HasSubstr("loading"));
  const Answer answer = post("/v1/chat/completions", kChat + "}");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.value_or("Retry-After", ""), "1");
  server_->serve(std::make_shared<FixedCatalogue>(std::vector<LanguagePtr>{model_.served}));
  EXPECT_EQ(get("/health/ready").status, 200);
  EXPECT_EQ(post("/v1/chat/completions", kChat + "}").status, 200);
}

TEST_F(AdmissionTest, DrainLetsStreamsEndAndRefusesNewOnes) {
  model_.engine->hold = true;
  start();
  auto client = open("/v1/chat/completions", streamed());
  auto other = std::make_unique<net::RawClient>(server_->port());  // open before the drain
  eventually([&] { return model_.engine->live() == 1; });
  bool clean = false;
  std::thread drain([&] { clean = server_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(20)); });
  eventually([&] { return server_->state() == ServerState::kDraining; });
  EXPECT_THAT(get("/health/ready").body, HasSubstr("draining"));
  const std::string body = kChat + "}";
  other->send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  const std::string refused = other->read_to_close();
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(refused, HasSubstr("Connection: close"));
  EXPECT_THAT(refused, HasSubstr("Retry-After"));
  model_.engine->release();
  EXPECT_THAT(client->read_to_close(), HasSubstr("data: [DONE]\n\n\r\n0\r\n\r\n"));
  drain.join();
  EXPECT_TRUE(clean);
}

TEST_F(AdmissionTest, DrainGivesUpAtItsDeadline) {
  model_.engine->hold = true;
  start();
  auto client = open("/v1/chat/completions", streamed());
  eventually([&] { return model_.engine->live() == 1; });
  EXPECT_FALSE(server_->drain(std::chrono::steady_clock::now() + std::chrono::milliseconds(50)));
}

}  // namespace
}  // namespace spillway::server
