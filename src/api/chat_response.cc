#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>

#include "api/chat.h"
#include "api/response_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

json::array bytes_json(std::string_view bytes) {
  json::array out;
  out.reserve(bytes.size());
  for (const char c : bytes) out.push_back(static_cast<unsigned char>(c));
  return out;
}

json::object logprob_json(std::string_view bytes, float logprob) {
  return {{"token", utf8_lossy(bytes)}, {"logprob", finite_logprob(logprob)}, {"bytes", bytes_json(bytes)}};
}

json::object call_json(const ToolCall& call) {
  return {{"id", call.id},
          {"type", "function"},
          {"function", json::object{{"name", call.name}, {"arguments", call.arguments}}}};
}

json::object message_json(const ChatChoice& choice) {
  json::object message;
  message["role"] = "assistant";
  message["content"] =
      choice.content.empty() && !choice.tool_calls.empty() ? json::value(nullptr) : json::value(choice.content);
  if (choice.reasoning_content) message["reasoning_content"] = *choice.reasoning_content;
  if (!choice.tool_calls.empty()) {
    json::array calls;
    for (const ToolCall& call : choice.tool_calls) calls.push_back(call_json(call));
    message["tool_calls"] = std::move(calls);
  }
  return message;
}

// {"content": [...]} and, for the reasoning's tokens, DeepSeek's {"reasoning_content": [...]}.
json::value logprobs_field(const std::vector<TokenLogprobs>* content, const std::vector<TokenLogprobs>* reasoning) {
  if (!content && !reasoning) return nullptr;
  json::object out;
  out["content"] = content ? json::value(logprobs_json(*content)) : json::value(nullptr);
  if (reasoning) out["reasoning_content"] = logprobs_json(*reasoning);
  return out;
}

std::string chunk(const ResponseHead& head, int index, json::object delta, json::value logprobs,
                  json::value finish_reason, const Usage* usage, bool include_usage) {
  json::object out = head_json(head, "chat.completion.chunk");
  json::object choice{{"index", index}};
  choice["delta"] = std::move(delta);
  choice["logprobs"] = std::move(logprobs);
  choice["finish_reason"] = std::move(finish_reason);
  json::array choices;
  choices.push_back(std::move(choice));
  out["choices"] = std::move(choices);
  set_chunk_usage(out, usage, include_usage);
  return json::serialize(out);
}

}  // namespace

json::object head_json(const ResponseHead& head, std::string_view object) {
  json::object out{{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
  if (!head.fingerprint.empty()) out["system_fingerprint"] = head.fingerprint;
  return out;
}

double finite_logprob(float logprob) { return std::max(logprob, -9999.0f); }

void set_chunk_usage(json::object& chunk, const Usage* usage, bool include_usage) {
  if (usage) {
    chunk["usage"] = usage_json(*usage);
  } else if (include_usage) {
    chunk["usage"] = nullptr;
  }
}

json::object usage_json(const Usage& usage) {
  json::object out;
  out["prompt_tokens"] = usage.prompt_tokens;
  out["completion_tokens"] = usage.completion_tokens;
  out["total_tokens"] = usage.prompt_tokens + usage.completion_tokens;
  out["prompt_tokens_details"] = json::object{{"cached_tokens", usage.cached_tokens}};
  out["completion_tokens_details"] =
      json::object{{"reasoning_tokens", usage.reasoning_tokens},
                   {"accepted_prediction_tokens", usage.accepted_tokens},
                   {"rejected_prediction_tokens", usage.draft_tokens - usage.accepted_tokens}};
  out["prompt_cache_hit_tokens"] = usage.cached_tokens;
  out["prompt_cache_miss_tokens"] = usage.prompt_tokens - usage.cached_tokens;
  return out;
}

json::array logprobs_json(const std::vector<TokenLogprobs>& tokens) {
  json::array out;
  for (const TokenLogprobs& token : tokens) {
    json::object entry = logprob_json(token.bytes, token.logprob);
    json::array top;
    for (const TopLogprob& other : token.top) top.push_back(logprob_json(other.bytes, other.logprob));
    entry["top_logprobs"] = std::move(top);
    out.push_back(std::move(entry));
  }
  return out;
}

std::string tool_call_id(std::string_view response_id, int choice, int tool_index) {
  const std::string_view tail = response_id.substr(std::min(response_id.find_last_of("-_") + 1, response_id.size()));
  return fmt::format("call_{}_{}_{}", choice, tool_index, tail);
}

std::string chat_response(const ResponseHead& head, const std::vector<ChatChoice>& choices, const Usage& usage) {
  json::object out = head_json(head, "chat.completion");
  json::array list;
  for (const ChatChoice& choice : choices) {
    json::object entry{{"index", choice.index}};
    entry["message"] = message_json(choice);
    entry["logprobs"] = logprobs_field(choice.logprobs ? &*choice.logprobs : nullptr,
                                       choice.reasoning_logprobs ? &*choice.reasoning_logprobs : nullptr);
    entry["finish_reason"] = finish_reason_name(choice.finish_reason);
    list.push_back(std::move(entry));
  }
  out["choices"] = std::move(list);
  out["usage"] = usage_json(usage);
  return json::serialize(out);
}

ChatChunks::ChatChunks(ResponseHead head, bool include_usage, bool reasoning)
    : head_(std::move(head)), include_usage_(include_usage), reasoning_(reasoning) {}

std::string ChatChunks::first(int index) const {
  json::object delta{{"role", "assistant"}};
  delta["content"] = reasoning_ ? json::value(nullptr) : json::value("");
  if (reasoning_) delta["reasoning_content"] = "";
  return chunk(head_, index, std::move(delta), nullptr, nullptr, nullptr, include_usage_);
}

std::string ChatChunks::delta(const ChatDelta& piece) const {
  using Kind = text::OutputDelta::Kind;
  const text::OutputDelta& from = piece.delta;
  const std::vector<TokenLogprobs>* logprobs = piece.logprobs ? &*piece.logprobs : nullptr;
  json::object delta;
  if (from.kind == Kind::kToolCall) {
    json::object call{{"index", from.tool_index}};
    json::object function;
    if (!from.tool_name.empty()) {
      call["id"] = tool_call_id(head_.id, piece.index, from.tool_index);
      call["type"] = "function";
      function["name"] = from.tool_name;
    }
    function["arguments"] = from.text;
    call["function"] = std::move(function);
    json::array calls;
    calls.push_back(std::move(call));
    delta["tool_calls"] = std::move(calls);
  } else {
    const bool thought = from.kind == Kind::kReasoning;
    delta["content"] = thought ? json::value(nullptr) : json::value(from.text);
    if (thought) {
      delta["reasoning_content"] = from.text;
    } else if (reasoning_) {
      delta["reasoning_content"] = nullptr;
    }
  }
  const bool thought = from.kind == Kind::kReasoning;
  return chunk(head_, piece.index, std::move(delta),
               logprobs_field(thought ? nullptr : logprobs, thought ? logprobs : nullptr), nullptr, nullptr,
               include_usage_);
}

std::string ChatChunks::finish(int index, FinishReason reason, const Usage* usage) const {
  json::object delta{{"content", ""}};
  if (reasoning_) delta["reasoning_content"] = nullptr;
  return chunk(head_, index, std::move(delta), nullptr, json::string(finish_reason_name(reason)), usage,
               include_usage_);
}

std::string ChatChunks::usage(const Usage& usage) const {
  json::object out = head_json(head_, "chat.completion.chunk");
  out["choices"] = json::array();
  out["usage"] = usage_json(usage);
  return json::serialize(out);
}

}  // namespace spillway::api
