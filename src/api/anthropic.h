// POST /v1/messages: Anthropic's request turned into a ChatRequest, and its response and stream of events. Pure
// functions over plain values, any thread; a MessageStream belongs to one response. Not its job: SSE framing.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/chat.h"
#include "api/common.h"
#include "api/errors.h"

namespace spillway::api {

// top_k, stop_sequences, thinking, tools and tool_choice land in the ChatRequest's own fields.
Parsed<ChatRequest> parse_messages_request(std::string_view body);
Parsed<ChatRequest> parse_messages_request(const boost::json::value& body);

// POST /v1/messages/count_tokens: the same without max_tokens.
Parsed<ChatRequest> parse_count_tokens_request(std::string_view body);
std::string count_tokens_response(int input_tokens);

// choice as of chat_response; stop_sequence: the stop string that ended it, if one did.
std::string messages_response(const ResponseHead& head, const ChatChoice& choice,
                              const std::optional<std::string>& stop_sequence, const Usage& usage);

struct StreamEvent {
  std::string event;  // the SSE "event:" field
  std::string data;   // the SSE "data:" field, one line of JSON
};

// The events of one streamed message, in order: start, any deltas, finish. Blocks open and close by themselves when the
// kind of delta changes.
class MessageStream {
 public:
  explicit MessageStream(ResponseHead head) : head_(std::move(head)) {}

  std::vector<StreamEvent> start(const Usage& usage);
  std::vector<StreamEvent> push(const text::OutputDelta& delta);
  std::vector<StreamEvent> finish(FinishReason reason, const std::optional<std::string>& stop_sequence,
                                  const Usage& usage);
  static StreamEvent ping();
  static StreamEvent error(const ApiError& error);

 private:
  enum class Block { kNone, kThinking, kText, kTool };
  void open(std::vector<StreamEvent>& events, Block kind, const text::OutputDelta& delta);
  void close(std::vector<StreamEvent>& events);

  ResponseHead head_;
  Block block_ = Block::kNone;
  int index_ = -1;       // of the open or last block
  int tool_index_ = -1;  // of the open tool block
};

}  // namespace spillway::api
