// Any bytes as the body of each endpoint: an error or a request, and what is accepted can be handed to a template.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "api/anthropic.h"
#include "api/chat.h"
#include "api/completions.h"

namespace {

void check(const spillway::api::Parsed<spillway::api::ChatRequest>& request) {
  if (!request.ok()) {
    if (request.error().message.empty() || request.error().http_status() >= 500) std::abort();
    return;
  }
  const spillway::api::ChatRequest& chat = request.value();
  if (chat.messages.empty()) std::abort();
  (void)template_messages(chat, true);
  (void)template_tools(chat);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway::api;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  check(parse_chat_request(body));
  check(parse_messages_request(body));
  check(parse_count_tokens_request(body));
  (void)parse_completion_request(body);
  (void)parse_tokenize_request(body);
  (void)parse_detokenize_request(body);
  return 0;
}
