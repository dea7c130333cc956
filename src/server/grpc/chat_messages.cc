#include "server/grpc/chat_messages.h"

#include <boost/json.hpp>
#include <optional>

namespace spillway::server {
namespace {

namespace json = boost::json;
using api::ApiError;
using api::ErrorKind;

// JSON text in a field; nothing and a failure when it is none.
std::optional<json::value> parse(const std::string& text, const char* field, std::optional<ApiError>& failure) {
  json::error_code error;
  json::value value = json::parse(text, error);
  if (!error) return value;
  failure =
      ApiError{ErrorKind::kInvalidFormat, std::string(field) + ": expected JSON, found " + error.message(), field, ""};
  return std::nullopt;
}

json::object message_json(const spillway::v1::Message& message) {
  json::object out{{"role", message.role()}, {"content", message.content()}};
  if (!message.reasoning_content().empty()) out["reasoning_content"] = message.reasoning_content();
  if (!message.tool_call_id().empty()) out["tool_call_id"] = message.tool_call_id();
  if (message.tool_calls_size() == 0) return out;
  json::array calls;
  for (const auto& call : message.tool_calls()) {
    const json::object function{{"name", call.name()}, {"arguments", call.arguments()}};
    calls.push_back(json::object{{"id", call.id()}, {"type", "function"}, {"function", function}});
  }
  out["tool_calls"] = std::move(calls);
  return out;
}

void add_tools(const spillway::v1::ChatRequest& message, json::object& out, std::optional<ApiError>& failure) {
  json::array tools;
  for (const auto& tool : message.tools()) {
    json::object function{{"name", tool.name()}, {"description", tool.description()}};
    if (!tool.parameters().empty()) {
      auto parameters = parse(tool.parameters(), "tools.parameters", failure);
      if (!parameters) return;
      function["parameters"] = std::move(*parameters);
    }
    tools.push_back(json::object{{"type", "function"}, {"function", std::move(function)}});
  }
  if (!tools.empty()) out["tools"] = std::move(tools);
  const std::string& choice = message.tool_choice();
  if (choice.empty()) return;
  if (choice == "auto" || choice == "none" || choice == "required") {
    out["tool_choice"] = choice;
  } else {
    const json::object function{{"name", choice}};
    out["tool_choice"] = json::object{{"type", "function"}, {"function", function}};
  }
}

void add_sampling(const spillway::v1::ChatRequest& message, json::object& out) {
  if (message.has_temperature()) out["temperature"] = message.temperature();
  if (message.has_top_p()) out["top_p"] = message.top_p();
  if (message.has_top_k()) out["top_k"] = message.top_k();
  if (message.has_min_p()) out["min_p"] = message.min_p();
  if (message.has_presence_penalty()) out["presence_penalty"] = message.presence_penalty();
  if (message.has_frequency_penalty()) out["frequency_penalty"] = message.frequency_penalty();
  if (message.has_repetition_penalty()) out["repetition_penalty"] = message.repetition_penalty();
  if (message.has_max_tokens()) out["max_tokens"] = message.max_tokens();
  if (message.has_seed()) out["seed"] = message.seed();
  if (message.has_n()) out["n"] = message.n();
  if (message.stop_size() > 0) {
    json::array stops;
    for (const std::string& stop : message.stop()) stops.push_back(json::string(stop));
    out["stop"] = std::move(stops);
  }
  if (!message.priority().empty()) out["priority"] = message.priority();
}

}  // namespace

api::Parsed<api::ChatRequest> chat_request_of(const spillway::v1::ChatRequest& message) {
  std::optional<ApiError> failure;
  json::object body{{"model", message.model()}};
  json::array messages;
  for (const auto& each : message.messages()) messages.push_back(message_json(each));
  body["messages"] = std::move(messages);
  add_sampling(message, body);
  add_tools(message, body, failure);
  if (!message.json_schema().empty() && !failure) {
    auto schema = parse(message.json_schema(), "json_schema", failure);
    if (schema && schema->is_object() && schema->get_object().empty()) {
      body["response_format"] = json::object{{"type", "json_object"}};
    } else if (schema) {
      json::object named{{"name", "answer"}, {"schema", std::move(*schema)}};
      body["response_format"] = json::object{{"type", "json_schema"}, {"json_schema", std::move(named)}};
    }
  }
  if (failure) return std::move(*failure);
  return api::parse_chat_request(json::value(std::move(body)));
}

spillway::v1::FinishReason finish_reason_of(api::FinishReason reason) {
  switch (reason) {
    case api::FinishReason::kStop:
      return spillway::v1::FINISH_REASON_STOP;
    case api::FinishReason::kLength:
      return spillway::v1::FINISH_REASON_LENGTH;
    case api::FinishReason::kToolCalls:
      return spillway::v1::FINISH_REASON_TOOL_CALLS;
    case api::FinishReason::kContentFilter:
      return spillway::v1::FINISH_REASON_CONTENT_FILTER;
    case api::FinishReason::kInsufficientSystemResource:
      break;
  }
  return spillway::v1::FINISH_REASON_INSUFFICIENT_SYSTEM_RESOURCE;
}

void fill(const api::Usage& usage, spillway::v1::Usage& message) {
  message.set_prompt_tokens(usage.prompt_tokens);
  message.set_cached_tokens(usage.cached_tokens);
  message.set_completion_tokens(usage.completion_tokens);
  message.set_reasoning_tokens(usage.reasoning_tokens);
}

void fill(const std::string& response_id, int index, CollectedChoice choice, spillway::v1::Choice& message) {
  message.set_index(index);
  message.mutable_message()->set_role("assistant");
  message.mutable_message()->set_content(std::move(choice.content));
  message.mutable_message()->set_reasoning_content(std::move(choice.reasoning));
  int number = 0;
  for (api::ToolCall& call : choice.tool_calls) {
    auto* out = message.mutable_message()->add_tool_calls();
    out->set_id(api::tool_call_id(response_id, index, number++));
    out->set_name(std::move(call.name));
    out->set_arguments(std::move(call.arguments));
  }
  if (choice.finish) message.set_finish_reason(finish_reason_of(*choice.finish));
}

}  // namespace spillway::server
