// Translation between the two dialects that upstreams speak, OpenAI's chat completions and Anthropic's messages:
// requests, whole answers and streams, with tools, reasoning, images, usage and the reason of the end. For the requests
// whose upstream lacks the client's dialect; everybody else's bytes pass untouched. Values in, values out; any thread.
// What a dialect cannot say is an error that names it, so that another upstream may be asked; docs/gateway.md lists
// what is left out because the other side knows nothing like it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gateway/sse_events.h"

namespace spillway::gateway {

// Requests. model: as the upstream calls it. max_tokens: where the client names none, for Anthropic must be told.
Result<std::string> chat_to_messages(std::string_view body, std::string_view model, int64_t max_tokens);
Result<std::string> messages_to_chat(std::string_view body, std::string_view model);

// Whole answers; the body is known to be sound.
Result<std::string> chat_answer_to_messages(std::string_view body);
Result<std::string> messages_answer_to_chat(std::string_view body);

// Finish and stop reasons; calls: some were told.
std::string_view stop_reason_of(std::string_view finish_reason, bool calls);
std::string_view finish_reason_of(std::string_view stop_reason);

// One stream: shown each event of the upstream's, it appends the client's. The last event of the upstream's stream
// ([DONE], message_stop), or finish() where that never came, appends the end; both together append it once.
class StreamTranslator {
 public:
  virtual ~StreamTranslator() = default;
  virtual Status event(const RawEvent& event, std::string& out) = 0;
  virtual void finish(std::string& out) = 0;
};
std::unique_ptr<StreamTranslator> chat_stream_to_messages();
// include_usage: the client asked for a chunk of its own with the usage. id: by which the client knows the answer
// already; empty: as the upstream calls it.
std::unique_ptr<StreamTranslator> messages_stream_to_chat(bool include_usage, std::string id = {});

}  // namespace spillway::gateway
