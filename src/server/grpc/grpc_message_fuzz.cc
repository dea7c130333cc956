// Any bytes as the messages of gRPC's calls: an error that is the client's, or a request that holds what it says.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <cstdlib>

#include "server/grpc/chat_messages.h"
#include "server/grpc/infer_messages.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  static const auto quiet = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(quiet);
  inference::ModelInferRequest infer;
  if (infer.ParseFromArray(data, static_cast<int>(size))) {
    const auto request = server::infer_request_of(infer);
    if (!request.ok()) {
      if (request.error().message.empty() || request.error().http_status() >= 500) std::abort();
    } else {
      for (const api::TensorIn& tensor : request->inputs) {
        if (api::check_tensor(tensor)) std::abort();
      }
    }
  }
  ::spillway::v1::ChatRequest chat;
  if (chat.ParseFromArray(data, static_cast<int>(size))) {
    const auto request = server::chat_request_of(chat);
    if (!request.ok() && (request.error().message.empty() || request.error().http_status() >= 500)) std::abort();
  }
  return 0;
}
