// Anthropic's message and its stream of events.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "api/anthropic.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

json::value stop_reason(FinishReason reason, bool stop_sequence) {
  switch (reason) {
    case FinishReason::kStop:
      return stop_sequence ? "stop_sequence" : "end_turn";
    case FinishReason::kLength:
      return "max_tokens";
    case FinishReason::kToolCalls:
      return "tool_use";
    case FinishReason::kContentFilter:
      return "refusal";
    case FinishReason::kInsufficientSystemResource:
      break;
  }
  return json::string(finish_reason_name(reason));  // Anthropic has no word for it
}

// input_tokens counts what was not read from the cache, as Anthropic defines it.
json::object messages_usage(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

json::object message_json(const ResponseHead& head, json::array content, json::value reason, const Usage& usage) {
  json::object out{{"id", head.id}, {"type", "message"}, {"role", "assistant"}, {"model", head.model}};
  out["content"] = std::move(content);
  out["stop_reason"] = std::move(reason);
  out["stop_sequence"] = nullptr;
  out["usage"] = messages_usage(usage);
  return out;
}

// tool_use carries an object; arguments that are none are kept as text.
json::value input_json(const std::string& arguments) {
  boost::system::error_code failed;
  json::value parsed = json::parse(arguments.empty() ? std::string_view("{}") : std::string_view(arguments), failed);
  if (!failed && parsed.is_object()) return parsed;
  return json::object{{"raw_arguments", arguments}};
}

StreamEvent event(const char* name, json::object data) {
  json::object out{{"type", name}};
  for (auto& field : data) out[field.key()] = std::move(field.value());
  return {name, json::serialize(out)};
}

StreamEvent block_delta(int index, const char* type, const char* field, std::string_view text) {
  return event("content_block_delta", {{"index", index}, {"delta", json::object{{"type", type}, {field, text}}}});
}

}  // namespace

std::string count_tokens_response(int input_tokens) {
  return json::serialize(json::object{{"input_tokens", input_tokens}});
}

std::string messages_response(const ResponseHead& head, const ChatChoice& choice,
                              const std::optional<std::string>& stop_sequence, const Usage& usage) {
  json::array content;
  if (choice.reasoning_content && !choice.reasoning_content->empty()) {
    content.push_back(json::object{{"type", "thinking"}, {"thinking", *choice.reasoning_content}, {"signature", ""}});
  }
  if (!choice.content.empty()) content.push_back(json::object{{"type", "text"}, {"text", choice.content}});
  for (const ToolCall& call : choice.tool_calls) {
    content.push_back(json::object{
        {"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", input_json(call.arguments)}});
  }
  json::object out =
      message_json(head, std::move(content), stop_reason(choice.finish_reason, stop_sequence.has_value()), usage);
  if (stop_sequence) out["stop_sequence"] = *stop_sequence;
  return json::serialize(out);
}

std::vector<StreamEvent> MessageStream::start(const Usage& usage) {
  return {event("message_start", {{"message", message_json(head_, {}, nullptr, usage)}})};
}

void MessageStream::open(std::vector<StreamEvent>& events, Block kind, const text::OutputDelta& delta) {
  close(events);
  block_ = kind;
  ++index_;
  json::object block;
  if (kind == Block::kThinking) {
    block = {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
  } else if (kind == Block::kText) {
    block = {{"type", "text"}, {"text", ""}};
  } else {
    tool_index_ = delta.tool_index;
    block = {{"type", "tool_use"},
             {"id", tool_call_id(head_.id, 0, delta.tool_index)},
             {"name", delta.tool_name},
             {"input", json::object()}};
  }
  events.push_back(event("content_block_start", {{"index", index_}, {"content_block", std::move(block)}}));
}

void MessageStream::close(std::vector<StreamEvent>& events) {
  if (block_ == Block::kNone) return;
  if (block_ == Block::kThinking) events.push_back(block_delta(index_, "signature_delta", "signature", ""));
  events.push_back(event("content_block_stop", {{"index", index_}}));
  block_ = Block::kNone;
}

std::vector<StreamEvent> MessageStream::push(const text::OutputDelta& delta) {
  using Kind = text::OutputDelta::Kind;
  std::vector<StreamEvent> events;
  if (delta.kind == Kind::kToolCall) {
    if (block_ != Block::kTool || tool_index_ != delta.tool_index) open(events, Block::kTool, delta);
    if (!delta.text.empty()) events.push_back(block_delta(index_, "input_json_delta", "partial_json", delta.text));
    return events;
  }
  if (delta.text.empty()) return events;
  const bool thought = delta.kind == Kind::kReasoning;
  const Block kind = thought ? Block::kThinking : Block::kText;
  if (block_ != kind) open(events, kind, delta);
  events.push_back(thought ? block_delta(index_, "thinking_delta", "thinking", delta.text)
                           : block_delta(index_, "text_delta", "text", delta.text));
  return events;
}

std::vector<StreamEvent> MessageStream::finish(FinishReason reason, const std::optional<std::string>& stop_sequence,
                                               const Usage& usage) {
  std::vector<StreamEvent> events;
  close(events);
  json::object delta{{"stop_reason", stop_reason(reason, stop_sequence.has_value())}};
  delta["stop_sequence"] = stop_sequence ? json::value(*stop_sequence) : json::value(nullptr);
  events.push_back(event("message_delta", {{"delta", std::move(delta)}, {"usage", messages_usage(usage)}}));
  events.push_back(event("message_stop", {}));
  return events;
}

StreamEvent MessageStream::ping() { return event("ping", {}); }

StreamEvent MessageStream::error(const ApiError& error) { return {"error", anthropic_error_body(error)}; }

}  // namespace spillway::api
