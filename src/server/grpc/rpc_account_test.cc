// Requests over gRPC on the same books as those over HTTP: records, timelines, feedback.
#include <gmock/gmock.h>

#include <mutex>

#include "server/grpc/grpc_fixture_for_test.h"
#include "server/http/exchange.h"

namespace spillway::server {
namespace {

using metrics::Moment;
using telemetry::RequestRecord;
using ::testing::Contains;

constexpr const char* kTrace = "0af7651916cd43dd8448eb211c80319c";

class Records final : public telemetry::RequestSink {
 public:
  void record(const RequestRecord& request) override {
    std::lock_guard lock(mutex_);
    all_.push_back(request);
  }
  std::vector<RequestRecord> all() const {
    std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<RequestRecord> all_;
};

class RpcAccountTest : public GrpcTest {
 protected:
  void serve_recorded(ServerOptions options = {}) {
    options.sinks = {&records_, &outcomes_};
    options.outcomes = &outcomes_;
    serve(std::move(options));
  }

  std::vector<Moment::Kind> moments(const std::string& id) {
    std::vector<Moment::Kind> kinds;
    const auto timeline = server_->timelines().find(id);
    if (!timeline) return kinds;
    for (const Moment& moment : timeline->snapshot().moments) kinds.push_back(moment.kind);
    return kinds;
  }

  static std::string id_told(const grpc::ClientContext& context) {
    const auto& metadata = context.GetServerInitialMetadata();
    const auto found = metadata.find("x-request-id");
    return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  }

  static spillway::v1::ChatRequest question() {
    spillway::v1::ChatRequest request;
    request.set_model("tiny-r1");
    auto* message = request.add_messages();
    message->set_role("user");
    message->set_content("What is 12 + 30?");
    return request;
  }

  telemetry::Outcomes outcomes_{telemetry::OutcomeOptions{}};
  Records records_;
};

TEST_F(RpcAccountTest, AnInferenceIsRecordedAndTakesFeedback) {
  serve_recorded();
  grpc::ClientContext context;
  context.AddMetadata("traceparent", std::string("00-") + kTrace + "-b7ad6b7169203331-01");
  context.AddMetadata("x-experiment-arm", "edge-int8");
  inference::ModelInferResponse response;
  ASSERT_TRUE(stub_->ModelInfer(&context, text_request("hello"), &response).ok());
  const std::string id = id_told(context);
  ASSERT_EQ(id.size(), 32u);

  ASSERT_EQ(records_.all().size(), 1u);
  const RequestRecord record = records_.all()[0];
  EXPECT_EQ(record.id, id);
  EXPECT_TRUE(record.id_is_ours);
  EXPECT_EQ(record.protocol, RequestRecord::Protocol::kGrpc);
  EXPECT_EQ(record.trace.trace_id, kTrace);
  EXPECT_EQ(record.trace.parent_id, "b7ad6b7169203331");
  EXPECT_EQ(record.route, "/inference.GRPCInferenceService/ModelInfer");
  EXPECT_EQ(record.operation, "infer");
  EXPECT_EQ(record.answered_by, "mini");
  EXPECT_EQ(record.arm, "edge-int8");
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.outcome, "ok");
  EXPECT_GT(record.prompt_tokens, 0);
  EXPECT_GT(record.duration_s, 0);
  EXPECT_THAT(moments(id), Contains(Moment::Kind::kQueued));
  EXPECT_THAT(moments(id), Contains(Moment::Kind::kFinished));
  EXPECT_EQ(moments(id).back(), Moment::Kind::kAnswered);
  EXPECT_NE(server_->timelines().find("id-hello"), nullptr);

  telemetry::Feedback feedback;
  feedback.request_id = id;
  feedback.converted = true;
  EXPECT_EQ(outcomes_.apply(feedback, 0, unix_seconds()), telemetry::Verdict::kAccepted);
}

TEST_F(RpcAccountTest, FailuresHaveTheStatusAndLabelOfHttp) {
  ServerOptions options;
  options.api_keys = {"key-1"};
  serve_recorded(std::move(options));
  const auto with_key = [](grpc::ClientContext& context) { context.AddMetadata("x-api-key", "key-1"); };
  EXPECT_FALSE(infer(text_request("a")).ok());
  EXPECT_FALSE(infer(text_request("a", "nobody"), nullptr, with_key).ok());
  engine::Refusal full;
  full.reason = engine::Refusal::Reason::kQueueRequests;
  full.retry_after_s = 3;
  full.message = "Too many.";
  encoder_.engine->refusal = full;
  EXPECT_FALSE(infer(text_request("a"), nullptr, with_key).ok());

  const auto all = records_.all();
  ASSERT_EQ(all.size(), 3u);
  const auto ends = [](const RequestRecord& record) { return std::pair(record.status, record.grpc_code); };
  EXPECT_EQ(ends(all[0]), std::pair(401, int{grpc::StatusCode::UNAUTHENTICATED}));
  EXPECT_EQ(ends(all[1]), std::pair(404, int{grpc::StatusCode::NOT_FOUND}));
  EXPECT_EQ(ends(all[2]), std::pair(429, int{grpc::StatusCode::RESOURCE_EXHAUSTED}));
  EXPECT_EQ(all[0].caller, 0u);
  EXPECT_EQ(all[1].caller, caller_of("key-1"));
  EXPECT_EQ(all[2].outcome, "rate_limit");
  EXPECT_THAT(moments(all[2].id), Contains(Moment::Kind::kRefused));
}

TEST_F(RpcAccountTest, EachInferenceOfAStreamHasAnIdOfItsOwn) {
  serve_recorded();
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (const char* text : {"a", "b"}) stream->Write(text_request(text));
  stream->WritesDone();
  inference::ModelStreamInferResponse response;
  int answers = 0;
  while (stream->Read(&response)) ++answers;
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answers, 2);
  const std::string id = id_told(context);
  const auto all = records_.all();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_THAT((std::vector{all[0].id, all[1].id}), ::testing::UnorderedElementsAre(id + "-1", id + "-2"));
  EXPECT_NE(all[0].trace.span_id, all[1].trace.span_id);
}

TEST_F(RpcAccountTest, ChatsTellTokensFirstTokenAndFinish) {
  serve_recorded();
  spillway::v1::ChatResponse response;
  grpc::ClientContext whole;
  ASSERT_TRUE(chat_->Complete(&whole, question(), &response).ok());
  grpc::ClientContext streamed;
  auto reader = chat_->Stream(&streamed, question());
  spillway::v1::ChatChunk chunk;
  while (reader->Read(&chunk)) continue;
  ASSERT_TRUE(reader->Finish().ok());

  const auto all = records_.all();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].route, "/spillway.v1.Chat/Complete");
  EXPECT_EQ(all[1].route, "/spillway.v1.Chat/Stream");
  for (const RequestRecord& record : all) {
    EXPECT_EQ(record.operation, "chat");
    EXPECT_EQ(record.answered_by, "tiny-r1");
    EXPECT_EQ(record.finish_reason, "stop");
    EXPECT_EQ(record.output_tokens, response.usage().completion_tokens());
    ASSERT_TRUE(record.first_token_s.has_value());
    EXPECT_LE(*record.first_token_s, record.duration_s);
  }
  EXPECT_EQ(all[0].id, id_told(whole));
  EXPECT_EQ(all[1].id, id_told(streamed));
  const auto timeline = server_->timelines().find(response.id());
  ASSERT_NE(timeline, nullptr);
  EXPECT_EQ(timeline->id(), all[0].id);
  EXPECT_EQ(timeline->snapshot().model, "tiny-r1");
}

TEST_F(RpcAccountTest, AChatThatItsClientLeftIsNoSuccess) {
  serve_recorded();
  model_.engine->hold = true;
  grpc::ClientContext context;
  auto reader = chat_->Stream(&context, question());
  eventually([&] { return model_.engine->live() == 1; });
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
  eventually([&] { return records_.all().size() == 1; });
  EXPECT_EQ(records_.all()[0].outcome, "cancelled");
  EXPECT_EQ(records_.all()[0].status, 499);
}

}  // namespace
}  // namespace spillway::server
