// The gRPC front end of a server of fakes, with stubs over a real connection.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "inference.grpc.pb.h"
#include "server/grpc/grpc_server.h"
#include "server/one_shot_fixture_for_test.h"
#include "spillway/v1/chat.grpc.pb.h"

namespace spillway::server {

class GrpcTest : public OneShotTest {
 protected:
  void serve(ServerOptions options = {}) {
    start_all(std::move(options));
    GrpcOptions grpc;
    grpc.address = "127.0.0.1";
    grpc.port = 0;
    auto started = GrpcServer::start(grpc, *server_);
    ASSERT_TRUE(started.ok()) << started.error().message;
    grpc_ = std::move(started).value();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(grpc_->port()), grpc::InsecureChannelCredentials());
    stub_ = inference::GRPCInferenceService::NewStub(channel_);
    chat_ = spillway::v1::Chat::NewStub(channel_);
  }

  void TearDown() override {
    grpc_.reset();
    server_.reset();
  }

  static inference::ModelInferRequest text_request(const std::string& text, const std::string& model = "mini") {
    inference::ModelInferRequest request;
    request.set_model_name(model);
    request.set_id("id-" + text);
    auto* input = request.add_inputs();
    input->set_name("text");
    input->set_datatype("BYTES");
    input->add_shape(1);
    input->mutable_contents()->add_bytes_contents(text);
    return request;
  }

  grpc::Status infer(const inference::ModelInferRequest& request, inference::ModelInferResponse* response = nullptr,
                     const std::function<void(grpc::ClientContext&)>& prepare = {}) {
    grpc::ClientContext context;
    if (prepare) prepare(context);
    inference::ModelInferResponse unused;
    return stub_->ModelInfer(&context, request, response ? response : &unused);
  }

  std::unique_ptr<GrpcServer> grpc_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  std::unique_ptr<spillway::v1::Chat::Stub> chat_;
};

}  // namespace spillway::server
