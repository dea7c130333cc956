// The gRPC front end in front of fakes, through generated stubs over a real connection.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <cstring>
#include <thread>

#include "server/grpc/grpc_fixture_for_test.h"
#include "spillway/v1/status.pb.h"

namespace spillway::server {
namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::HasSubstr;

TEST_F(GrpcTest, InfersFromTextAndRawTensors) {
  serve();
  ModelInferResponse response;
  const grpc::Status status = infer(text_request("hello"), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.id(), "id-hello");
  EXPECT_EQ(response.outputs(0).name(), "embedding");
  ASSERT_EQ(response.raw_output_contents(0).size(), 16u);

  ModelInferRequest raw;
  raw.set_model_name("mini");
  auto* input = raw.add_inputs();
  input->set_name("input_ids");
  input->set_datatype("INT64");
  input->add_shape(1);
  input->add_shape(2);
  const int64_t ids[] = {7, 9};
  raw.add_raw_input_contents(ids, sizeof ids);
  response.Clear();
  ASSERT_TRUE(infer(raw, &response).ok());
  float values[4];
  std::memcpy(values, response.raw_output_contents(0).data(), 16);
  EXPECT_EQ(values[0], 7);
  EXPECT_EQ(values[1], 9);
}

TEST_F(GrpcTest, MalformedRequestsAreInvalidArguments) {
  serve();
  ModelInferRequest request = text_request("a");
  request.mutable_inputs(0)->set_shape(0, 2);
  EXPECT_EQ(infer(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = text_request("a");
  request.add_raw_input_contents("x");
  EXPECT_THAT(infer(request).error_message(), HasSubstr("found both"));
  request.mutable_inputs(0)->clear_contents();
  EXPECT_THAT(infer(request).error_message(), HasSubstr("expected 1 elements"));
  request.add_raw_input_contents("y");
  EXPECT_THAT(infer(request).error_message(), HasSubstr("for each of 1 inputs, found 2"));
  EXPECT_EQ(infer(ModelInferRequest()).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(infer(text_request("a", "nobody")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(infer(text_request("a", "tiny-r1")).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(infer(text_request("a", "eyes")).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GrpcTest, RefusalsSayWhenToComeBack) {
  serve();
  engine::Refusal full;
  full.reason = engine::Refusal::Reason::kQueueRequests;
  full.retry_after_s = 3;
  full.message = "Too many.";
  encoder_.engine->refusal = full;
  const grpc::Status status = infer(text_request("a"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  spillway::v1::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  spillway::v1::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_EQ(retry.retry_delay().seconds(), 3);
}

TEST_F(GrpcTest, DeadlinesAndCancellationsReachTheEngine) {
  serve();
  encoder_.engine->hold = true;
  const grpc::Status late = infer(text_request("a"), nullptr, [](grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  });
  EXPECT_EQ(late.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_LT(encoder_.engine->seen().at(0).deadline, std::chrono::steady_clock::now() + std::chrono::seconds(5));
  eventually([&] { return encoder_.engine->cancelled() == 1; });

  grpc::ClientContext context;
  std::thread canceller([&] {
    eventually([&] { return encoder_.engine->held() == 1; });
    context.TryCancel();
  });
  ModelInferResponse response;
  EXPECT_EQ(stub_->ModelInfer(&context, text_request("a"), &response).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  eventually([&] { return encoder_.engine->cancelled() == 2; });
  eventually([&] { return server_->requests_in_flight() == 0; });
}

TEST_F(GrpcTest, AnswersComeFromAnotherThread) {
  serve();
  encoder_.engine->hold = true;
  ModelInferResponse response;
  grpc::Status status;
  std::thread caller([&] { status = infer(text_request("a"), &response); });
  eventually([&] { return encoder_.engine->held() == 1; });
  encoder_.engine->release();
  caller.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.outputs_size(), 1);
}

TEST_F(GrpcTest, StreamsAnswerEachRequestAndOutliveErrors) {
  serve();
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  constexpr int kCount = 1000;
  std::thread writer([&] {
    for (int i = 0; i < kCount; ++i) {
      ModelInferRequest request = text_request(std::to_string(i), i % 10 == 3 ? "nobody" : "mini");
      ASSERT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  inference::ModelStreamInferResponse response;
  int good = 0, bad = 0;
  while (stream->Read(&response)) {
    EXPECT_THAT(response.infer_response().id(), HasSubstr("id-"));
    ++(response.error_message().empty() ? good : bad);
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(good, kCount * 9 / 10);
  EXPECT_EQ(bad, kCount / 10);
}

TEST_F(GrpcTest, ACancelledStreamCancelsWhatIsUnderWay) {
  serve();
  encoder_.engine->hold = true;
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(stream->Write(text_request(std::to_string(i))));
  eventually([&] { return encoder_.engine->held() == 5; });
  context.TryCancel();
  EXPECT_FALSE(stream->Finish().ok());
  eventually([&] { return encoder_.engine->cancelled() == 5; });
  eventually([&] { return server_->requests_in_flight() == 0; });
}

TEST_F(GrpcTest, KeysAreAskedFor) {
  ServerOptions options;
  options.api_keys = {"sesame"};
  serve(std::move(options));
  EXPECT_EQ(infer(text_request("a")).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  const auto with = [](const char* name, const char* value) {
    return [=](grpc::ClientContext& context) { context.AddMetadata(name, value); };
  };
  EXPECT_EQ(infer(text_request("a"), nullptr, with("authorization", "Bearer wrong")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(infer(text_request("a"), nullptr, with("authorization", "Bearer sesame")).ok());
  EXPECT_TRUE(infer(text_request("a"), nullptr, with("x-api-key", "sesame")).ok());
  grpc::ClientContext context;
  EXPECT_EQ(stub_->ModelStreamInfer(&context)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext chat_context;
  spillway::v1::ChatResponse answer;
  EXPECT_EQ(chat_->Complete(&chat_context, spillway::v1::ChatRequest(), &answer).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext live_context;
  inference::ServerLiveResponse live;
  EXPECT_TRUE(stub_->ServerLive(&live_context, {}, &live).ok());
}

TEST_F(GrpcTest, HealthMayAskForAKeyToo) {
  ServerOptions options;
  options.api_keys = {"sesame"};
  options.open_health = false;
  serve(std::move(options));
  grpc::ClientContext context;
  inference::ServerReadyResponse ready;
  EXPECT_EQ(stub_->ServerReady(&context, {}, &ready).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(GrpcTest, AStreamOfLargeRequestsIsHeldBackAndAnswered) {
  serve();
  grpc::ClientContext context;
  auto stream = stub_->ModelStreamInfer(&context);
  ModelInferRequest request = text_request("a");
  auto* ids = &request.mutable_inputs(0)->mutable_contents()->mutable_bytes_contents()->at(0);
  ids->assign(8 << 20, 'a');                     // eight of them are the stream's bytes
  request.mutable_inputs(0)->set_name("words");  // each is an error
  std::thread writer([&] {
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(stream->Write(request));
    stream->WritesDone();
  });
  inference::ModelStreamInferResponse response;
  int answers = 0;
  while (stream->Read(&response)) ++answers;
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answers, 20);
}

TEST_F(GrpcTest, TellsOfItsModels) {
  serve();
  const auto call = [](auto method, const auto& request, auto& response) {
    grpc::ClientContext context;
    return method(&context, request, &response);
  };
  inference::ModelMetadataRequest metadata_request;
  metadata_request.set_name("eyes");
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(call([&](auto... a) { return stub_->ModelMetadata(a...); }, metadata_request, metadata).ok());
  EXPECT_EQ(metadata.inputs(0).shape_size(), 4);
  inference::ModelConfigRequest config_request;
  config_request.set_name("mini");
  inference::ModelConfigResponse config;
  ASSERT_TRUE(call([&](auto... a) { return stub_->ModelConfig(a...); }, config_request, config).ok());
  EXPECT_EQ(config.config().max_batch_size(), 64);
  EXPECT_EQ(config.config().input(0).data_type(), inference::TYPE_STRING);
  ASSERT_TRUE(infer(text_request("a")).ok());
  inference::ModelStatisticsResponse statistics;
  ASSERT_TRUE(
      call([&](auto... a) { return stub_->ModelStatistics(a...); }, inference::ModelStatisticsRequest(), statistics)
          .ok());
  EXPECT_EQ(statistics.model_stats(0).inference_count(), 1u);
  inference::RepositoryIndexResponse index;
  ASSERT_TRUE(
      call([&](auto... a) { return stub_->RepositoryIndex(a...); }, inference::RepositoryIndexRequest(), index).ok());
  EXPECT_EQ(index.models_size(), 4);
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("mini");
  inference::RepositoryModelUnloadResponse unloaded;
  EXPECT_EQ(call([&](auto... a) { return stub_->RepositoryModelUnload(a...); }, unload, unloaded).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  inference::RepositoryModelLoadRequest load;
  load.set_model_name("mini");
  (*load.mutable_parameters())["config"].set_string_param("{}");
  inference::RepositoryModelLoadResponse loaded;
  const grpc::Status configured = call([&](auto... a) { return stub_->RepositoryModelLoad(a...); }, load, loaded);
  EXPECT_EQ(configured.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(configured.error_message(), testing::HasSubstr("found \"config\""));
  inference::SystemSharedMemoryRegisterResponse registered;
  EXPECT_EQ(call([&](auto... a) { return stub_->SystemSharedMemoryRegister(a...); },
                 inference::SystemSharedMemoryRegisterRequest(), registered)
                .error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(GrpcTest, ChatsWholeAndStreamed) {
  serve();
  spillway::v1::ChatRequest request;
  request.set_model("tiny-r1");
  auto* message = request.add_messages();
  message->set_role("user");
  message->set_content("What is 12 + 30?");
  spillway::v1::ChatResponse response;
  grpc::ClientContext whole;
  const grpc::Status status = chat_->Complete(&whole, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.choices_size(), 1);
  EXPECT_EQ(response.choices(0).message().content(), "The answer is 42.");
  EXPECT_THAT(response.choices(0).message().reasoning_content(), HasSubstr("thinking"));
  EXPECT_EQ(response.choices(0).finish_reason(), spillway::v1::FINISH_REASON_STOP);
  EXPECT_GT(response.usage().completion_tokens(), 3);

  grpc::ClientContext streamed;
  auto reader = chat_->Stream(&streamed, request);
  spillway::v1::ChatChunk chunk;
  std::string content;
  int chunks = 0, finishes = 0;
  spillway::v1::Usage usage;
  while (reader->Read(&chunk)) {
    ++chunks;
    content += chunk.content();
    finishes += chunk.finish_reason() != spillway::v1::FINISH_REASON_UNSPECIFIED;
    if (chunk.has_usage()) usage = chunk.usage();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(content, "The answer is 42.");
  EXPECT_GT(chunks, 2);
  EXPECT_EQ(finishes, 1);
  EXPECT_EQ(usage.completion_tokens(), response.usage().completion_tokens());

  request.set_temperature(9);
  grpc::ClientContext wrong;
  const grpc::Status refused = chat_->Complete(&wrong, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("temperature"));
}

TEST_F(GrpcTest, ACancelledChatFreesItsSequence) {
  serve();
  model_.engine->hold = true;
  spillway::v1::ChatRequest request;
  request.set_model("tiny-r1");
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("hi");
  grpc::ClientContext context;
  auto reader = chat_->Stream(&context, request);
  eventually([&] { return model_.engine->live() == 1; });
  context.TryCancel();
  EXPECT_FALSE(reader->Finish().ok());
  eventually([&] { return model_.engine->live() == 0; });
  eventually([&] { return server_->requests_in_flight() == 0; });
}

TEST_F(GrpcTest, DrainAnswersWhatWasAcceptedAndRefusesTheRest) {
  serve();
  encoder_.engine->hold = true;
  grpc::Status status;
  std::thread caller([&] { status = infer(text_request("a")); });
  eventually([&] { return encoder_.engine->held() == 1; });
  const TimePoint deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::thread drain([&] { EXPECT_TRUE(server_->drain(deadline)); });
  eventually([&] { return server_->state() == ServerState::kDraining; });
  EXPECT_EQ(infer(text_request("b")).error_code(), grpc::StatusCode::UNAVAILABLE);
  encoder_.engine->release();
  drain.join();
  EXPECT_TRUE(grpc_->drain(deadline));
  caller.join();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

}  // namespace
}  // namespace spillway::server
