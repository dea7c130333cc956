// POST /chat/completions in DeepSeek's and OpenAI's dialect: the request, its checks, and the bodies that answer it.
// Pure functions over plain values, any thread. Not its job: templates, tokens, SSE framing.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/common.h"
#include "api/errors.h"
#include "text/output_parser.h"

namespace spillway::api {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };
std::string_view role_name(Role role);

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text, as the model or the client wrote it
};

struct Message {
  Role role = Role::kUser;
  std::optional<std::string> content;  // text parts joined; absent for null
  std::string name;
  std::optional<std::string> reasoning_content;
  std::vector<ToolCall> tool_calls;
  std::string tool_call_id;
  bool prefix = false;  // assistant, last: the answer continues it
};

struct Tool {
  std::string name;
  std::string description;
  boost::json::value parameters;  // JSON schema or null
  bool strict = false;
  boost::json::object source;  // the whole {"type":"function","function":{...}} as sent, for the template
};

struct ToolChoice {
  enum class Kind { kNone, kAuto, kRequired, kFunction } kind = Kind::kNone;
  std::string function;  // with kFunction
};

struct ResponseFormat {
  enum class Kind { kText, kJsonObject, kJsonSchema } kind = Kind::kText;
  boost::json::value schema;  // with kJsonSchema
};

struct ChatRequest {
  std::string model;
  std::vector<Message> messages;  // at least one
  Sampling sampling;
  StreamOptions stream;
  ResponseFormat format;
  std::vector<Tool> tools;
  ToolChoice tool_choice;  // default: none without tools, auto with
  bool parallel_tool_calls = true;
  bool logprobs = false;
  int top_logprobs = 0;  // [0, 20]
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // also set when the last message has prefix
  std::optional<bool> thinking;  // thinking.type, enable_thinking, chat_template_kwargs.{enable_thinking,thinking}
  std::string reasoning_effort;  // "" when absent
  boost::json::object chat_template_kwargs;
  RequestPriority priority = RequestPriority::kNormal;
  std::optional<int64_t> deadline_ms;  // >= 0: the whole answer is wanted within this; past it the request ends
  std::string user;                    // user or user_id
  boost::json::object metadata;
};

struct ChatParseOptions {
  bool strict_reasoning_content = false;  // R1's first API: reasoning_content in an input message is a 400
};

Parsed<ChatRequest> parse_chat_request(std::string_view body, const ChatParseOptions& options = {});
Parsed<ChatRequest> parse_chat_request(const boost::json::value& body, const ChatParseOptions& options = {});

// The variables "messages" and "tools" of the chat template. Tool-call arguments: some templates concatenate them (the
// JSON text, DeepSeek), others apply tojson to them (an object; Hermes and Llama).
boost::json::array template_messages(const ChatRequest& request, bool arguments_as_objects);
boost::json::value template_tools(const ChatRequest& request);  // null without tools or with tool_choice none

// ---- responses ----

struct ChatChoice {
  int index = 0;
  std::string content;
  std::optional<std::string> reasoning_content;  // absent: the field is left out
  std::vector<ToolCall> tool_calls;
  std::optional<std::vector<TokenLogprobs>> logprobs;
  std::optional<std::vector<TokenLogprobs>> reasoning_logprobs;
  FinishReason finish_reason = FinishReason::kStop;
};

std::string chat_response(const ResponseHead& head, const std::vector<ChatChoice>& choices, const Usage& usage);

// One streamed piece of one choice.
struct ChatDelta {
  int index = 0;            // choice
  text::OutputDelta delta;  // kind, text, tool_index, tool_name
  std::optional<std::vector<TokenLogprobs>> logprobs;
};

// Bodies of "data: " lines, in the order they are sent: first (one a choice), deltas, finish (one a choice), then with
// include_usage the usage chunk, then [DONE]. null_usage: put "usage":null in (include_usage was asked).
class ChatChunks {
 public:
  ChatChunks(ResponseHead head, bool include_usage, bool reasoning);

  std::string first(int index) const;  // role; reasoning models: content null, reasoning_content ""
  std::string delta(const ChatDelta& delta) const;
  // usage: DeepSeek puts it on the last choice's finish chunk when the client did not ask for include_usage.
  std::string finish(int index, FinishReason reason, const Usage* usage) const;
  std::string usage(const Usage& usage) const;  // empty choices

 private:
  ResponseHead head_;
  bool include_usage_;
  bool reasoning_;
};

// "call_..." of one tool call: the same for the same response, choice and index.
std::string tool_call_id(std::string_view response_id, int choice, int tool_index);

boost::json::object usage_json(const Usage& usage);
boost::json::array logprobs_json(const std::vector<TokenLogprobs>& tokens);

}  // namespace spillway::api
