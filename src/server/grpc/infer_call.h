// One inference over gRPC, from the message to the filled response: shared by the unary call and the stream.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "inference.grpc.pb.h"
#include "server/grpc/rpc_account.h"
#include "server/model_catalogue.h"
#include "server/one_shot/one_shot_call.h"

namespace spillway::server {

// Why there is no such ready model.
api::ApiError unknown_model(const Server& server, const std::string& name, const std::string& version);

// An inference under way. The request must live until done was called; the response is filled before.
class InferCall : public std::enable_shared_from_this<InferCall> {
 public:
  // done: called once, perhaps before start() returns, and never on an engine's thread.
  using Done = std::function<void(const grpc::Status&)>;
  InferCall(RpcShared& shared, std::unique_ptr<RpcAccount> account, const inference::ModelInferRequest& request,
            inference::ModelInferResponse& response, TimePoint deadline, Done done);

  void start();
  void cancel();  // any thread; done is still called

 private:
  void run(OneShotPtr model);
  void prepare(OneShotPtr model);
  void refuse(const Refused& refused);
  void end(const RpcEnd& end);

  RpcShared& shared_;
  const std::unique_ptr<RpcAccount> account_;
  const inference::ModelInferRequest& request_;
  inference::ModelInferResponse& response_;
  const TimePoint deadline_;
  Done done_;
  InFlight in_flight_;
  std::mutex mutex_;
  bool cancelled_ = false;             // under mutex_
  std::shared_ptr<OneShotCall> call_;  // under mutex_
};

grpc::ServerUnaryReactor* start_infer(RpcShared& shared, grpc::CallbackServerContext* context,
                                      const inference::ModelInferRequest* request,
                                      inference::ModelInferResponse* response);

}  // namespace spillway::server
