// Between gRPC's messages and the protocol's plain values. Pure functions, any thread.
#pragma once

#include "api/kserve.h"
#include "inference.pb.h"

namespace spillway::server {

// The result points into the message.
api::Parsed<api::InferRequest> infer_request_of(const inference::ModelInferRequest& message);

void fill(const api::InferResponse& response, inference::ModelInferResponse& message);

}  // namespace spillway::server
