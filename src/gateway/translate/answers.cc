// Whole answers, reasons and usage in the other dialect's words.
#include "gateway/translate/answers.h"

#include <chrono>

#include "gateway/translate/translate.h"

namespace spillway::gateway {

std::string_view stop_reason_of(std::string_view finish_reason, bool calls) {
  if (calls && finish_reason == "stop") return "tool_use";  // as OpenAI says it where a function was named
  if (finish_reason == "length") return "max_tokens";
  if (finish_reason == "tool_calls" || finish_reason == "function_call") return "tool_use";
  if (finish_reason == "content_filter") return "refusal";
  return "end_turn";
}

std::string_view finish_reason_of(std::string_view stop_reason) {
  if (stop_reason == "max_tokens" || stop_reason == "model_context_window_exceeded") return "length";
  if (stop_reason == "tool_use") return "tool_calls";
  if (stop_reason == "refusal") return "content_filter";
  return "stop";
}

void UsageFigures::take_openai(const json::object& usage) {
  prompt = number_of(usage, "prompt_tokens");
  output = number_of(usage, "completion_tokens");
  cached = number_of(usage, "prompt_cache_hit_tokens");
  const json::object* details = object_of(usage, "prompt_tokens_details");
  if (details != nullptr && member_of(*details, "cached_tokens") != nullptr)
    cached = number_of(*details, "cached_tokens");
  known = true;
}

// message_start tells the prompt, message_delta the output (and at some the prompt again).
void UsageFigures::take_anthropic(const json::object& usage) {
  if (member_of(usage, "input_tokens") != nullptr) {
    cached = number_of(usage, "cache_read_input_tokens");
    prompt = number_of(usage, "input_tokens") + cached + number_of(usage, "cache_creation_input_tokens");
  }
  if (member_of(usage, "output_tokens") != nullptr) output = number_of(usage, "output_tokens");
  known = true;
}

json::object UsageFigures::openai() const {
  return {{"prompt_tokens", prompt},
          {"completion_tokens", output},
          {"total_tokens", prompt + output},
          {"prompt_tokens_details", json::object{{"cached_tokens", cached}}}};
}

json::object UsageFigures::anthropic() const {
  return {{"input_tokens", prompt - cached},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", cached},
          {"output_tokens", output}};
}

int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

namespace {

Result<json::array> blocks_of(const json::object& message) {
  json::array blocks;
  std::string_view reasoning = text_of(message, "reasoning_content");
  if (reasoning.empty()) reasoning = text_of(message, "reasoning");
  if (!reasoning.empty()) blocks.push_back({{"type", "thinking"}, {"thinking", reasoning}, {"signature", ""}});
  std::string_view text = text_of(message, "content");
  if (text.empty()) text = text_of(message, "refusal");
  if (!text.empty()) blocks.push_back({{"type", "text"}, {"text", text}});
  if (const json::array* calls = array_of(message, "tool_calls")) {
    for (const json::value& value : *calls) {
      SW_ASSIGN(const json::object* function, function_of(value));
      const json::object& call = value.get_object();
      blocks.push_back({{"type", "tool_use"},
                        {"id", text_of(call, "id")},
                        {"name", text_of(*function, "name")},
                        {"input", input_of_call(text_of(*function, "arguments"))}});
    }
  }
  return blocks;
}

json::object message_of(const json::object& from) {
  std::string text, reasoning;
  json::array calls;
  if (const json::array* blocks = array_of(from, "content")) {
    for (const json::value& value : *blocks) {
      const json::object* block = value.if_object();
      if (block == nullptr) continue;
      const std::string_view type = text_of(*block, "type");
      if (type == "text") text += text_of(*block, "text");
      if (type == "thinking") reasoning += text_of(*block, "thinking");
      if (type != "tool_use") continue;
      const json::value* input = member_of(*block, "input");
      calls.push_back({{"id", text_of(*block, "id")},
                       {"type", "function"},
                       {"function", json::object{{"name", text_of(*block, "name")},
                                                 {"arguments", input == nullptr ? "{}" : json::serialize(*input)}}}});
    }
  }
  json::object message{{"role", "assistant"}};
  if (text.empty() && !calls.empty())
    message["content"] = nullptr;
  else
    message["content"] = std::move(text);
  if (!reasoning.empty()) message["reasoning_content"] = std::move(reasoning);
  if (!calls.empty()) message["tool_calls"] = std::move(calls);
  return message;
}

}  // namespace

Result<std::string> chat_answer_to_messages(std::string_view body) {
  SW_ASSIGN(const json::object from, parse_json_object(body));
  const json::array* choices = array_of(from, "choices");
  const json::object* choice = choices == nullptr || choices->empty() ? nullptr : choices->front().if_object();
  const json::object* message = choice == nullptr ? nullptr : object_of(*choice, "message");
  if (message == nullptr) return invalid("choices: expected a message, found none");
  SW_ASSIGN(json::array blocks, blocks_of(*message));
  UsageFigures usage;
  if (const json::object* told = object_of(from, "usage")) usage.take_openai(*told);
  json::object to{
      {"id", text_of(from, "id")}, {"type", "message"}, {"role", "assistant"}, {"model", text_of(from, "model")}};
  const json::array* calls = array_of(*message, "tool_calls");
  to["content"] = std::move(blocks);
  to["stop_reason"] = stop_reason_of(text_of(*choice, "finish_reason"), calls != nullptr && !calls->empty());
  to["stop_sequence"] = nullptr;
  to["usage"] = usage.anthropic();
  return json::serialize(to);
}

Result<std::string> messages_answer_to_chat(std::string_view body) {
  SW_ASSIGN(const json::object from, parse_json_object(body));
  UsageFigures usage;
  if (const json::object* told = object_of(from, "usage")) usage.take_anthropic(*told);
  json::object choice{{"index", 0}, {"message", message_of(from)}, {"logprobs", nullptr}};
  choice["finish_reason"] = finish_reason_of(text_of(from, "stop_reason"));
  json::object to{{"id", text_of(from, "id")},
                  {"object", "chat.completion"},
                  {"created", unix_now()},
                  {"model", text_of(from, "model")}};
  to["choices"] = json::array{std::move(choice)};
  to["usage"] = usage.openai();
  return json::serialize(to);
}

}  // namespace spillway::gateway
