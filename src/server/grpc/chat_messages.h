// Between the chat's messages over gRPC and the typed request and events that HTTP's chat uses too. Pure functions, any
// thread.
#pragma once

#include <string>

#include "api/chat.h"
#include "server/completion.h"
#include "spillway/v1/chat.pb.h"

namespace spillway::server {

// By way of the JSON form, so that every check is the same one.
api::Parsed<api::ChatRequest> chat_request_of(const spillway::v1::ChatRequest& message);

spillway::v1::FinishReason finish_reason_of(api::FinishReason reason);
void fill(const api::Usage& usage, spillway::v1::Usage& message);
void fill(const std::string& response_id, int index, CollectedChoice choice, spillway::v1::Choice& message);

}  // namespace spillway::server
