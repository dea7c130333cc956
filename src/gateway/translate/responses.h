// OpenAI's responses API in the words of chat completions: every upstream speaks those, or is translated from them. The
// state that OpenAI keeps between responses is not there: requests that refer to it are errors that say so. Values in,
// values out; any thread.
#pragma once

#include <boost/json/object.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/translate/translate.h"

namespace spillway::gateway {

struct ResponsesRequest {
  boost::json::object asked;  // as the client put it
  std::string chat;           // the body of the chat completion
  bool stream = false;
};
Result<ResponsesRequest> responses_to_chat(std::string_view body);

// A chat completion, or its stream, as the response to what was asked.
Result<std::string> chat_answer_to_response(const boost::json::object& asked, std::string_view body);
std::unique_ptr<StreamTranslator> chat_stream_to_response(const boost::json::object& asked);

}  // namespace spillway::gateway
