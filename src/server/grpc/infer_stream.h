// ModelStreamInfer: many inferences over one stream, each answered when it is done.
#pragma once

#include "inference.grpc.pb.h"
#include "server/grpc/rpc.h"

namespace spillway::server {

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* start_infer_stream(
    RpcShared& shared, grpc::CallbackServerContext* context);

}  // namespace spillway::server
