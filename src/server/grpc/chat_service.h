// ChatService: spillway.v1.Chat over the same plans and completions as HTTP's chat.
#pragma once

#include "server/grpc/rpc.h"
#include "spillway/v1/chat.grpc.pb.h"

namespace spillway::server {

class ChatService final : public spillway::v1::Chat::CallbackService {
 public:
  explicit ChatService(RpcShared& shared) : shared_(shared) {}

  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context, const spillway::v1::ChatRequest* request,
                                     spillway::v1::ChatResponse* response) override;
  grpc::ServerWriteReactor<spillway::v1::ChatChunk>* Stream(grpc::CallbackServerContext* context,
                                                            const spillway::v1::ChatRequest* request) override;

 private:
  RpcShared& shared_;
};

}  // namespace spillway::server
