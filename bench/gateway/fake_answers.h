// What fake_upstream says beside plain chat: Anthropic's dialect, calls of tools with reasoning, embeddings, rankings.
// Pure.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "net/sse.h"

namespace spillway::net {

inline std::string words(int tokens) {
  std::string text;
  for (int i = 0; i < tokens; ++i) text += fmt::format("t{} ", i);
  return text;
}

inline std::string openai_usage(int tokens) {
  return fmt::format(
      R"({{"prompt_tokens":7,"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":3}}}})",
      tokens, tokens + 7);
}

// A model that thinks, then calls two tools.
inline std::string openai_tools(std::string_view name) {
  return fmt::format(
      R"({{"id":"fake-1","object":"chat.completion","created":1,"model":"{}","choices":[{{"index":0,"message":{{"role":"assistant","content":null,"reasoning_content":"let me see","tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"weather","arguments":"{{\"city\":\"Paris\"}}"}}}},{{"id":"call_2","type":"function","function":{{"name":"time","arguments":"{{}}"}}}}]}},"finish_reason":"tool_calls"}}],"usage":{}}})",
      name, openai_usage(20));
}

inline std::string openai_tool_events(std::string_view name) {
  std::string out;
  const auto chunk = [&](std::string_view delta, std::string_view finish = "null", std::string_view usage = "") {
    append_sse_event(
        out,
        fmt::format(
            R"({{"id":"fake-1","object":"chat.completion.chunk","created":1,"model":"{}","choices":[{{"index":0,"delta":{},"finish_reason":{}}}]{}}})",
            name, delta, finish, usage));
  };
  chunk(R"({"role":"assistant","content":null})");
  chunk(R"({"reasoning_content":"let me "})");
  chunk(R"({"reasoning_content":"see"})");
  chunk(R"({"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather","arguments":""}}]})");
  chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]})");
  chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"\"Paris\"}"}}]})");
  chunk(R"({"tool_calls":[{"index":1,"id":"call_2","type":"function","function":{"name":"time","arguments":"{}"}}]})");
  chunk("{}", "\"tool_calls\"", ",\"usage\":" + openai_usage(20));
  append_sse_event(out, "[DONE]");
  return out;
}

inline constexpr std::string_view kAnthropicUsage =
    R"({"input_tokens":4,"cache_read_input_tokens":3,"cache_creation_input_tokens":0,"output_tokens":20})";

inline std::string anthropic_whole(std::string_view name, bool tools, int tokens) {
  const std::string content =
      tools
          ? std::string(
                R"([{"type":"thinking","thinking":"let me see","signature":"s"},{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Paris"}}])")
          : fmt::format(R"([{{"type":"text","text":"{}"}}])", words(tokens));
  return fmt::format(
      R"({{"id":"msg_1","type":"message","role":"assistant","model":"{}","content":{},"stop_reason":"{}","stop_sequence":null,"usage":{}}})",
      name, content, tools ? "tool_use" : "end_turn", kAnthropicUsage);
}

// lead: what the first text begins with.
inline std::string anthropic_events(std::string_view name, bool tools, int tokens, std::string_view lead = "") {
  std::string out;
  const auto event = [&](std::string_view type, std::string_view rest) {
    append_sse_event(out, fmt::format(R"({{"type":"{}"{}}})", type, rest), type);
  };
  event(
      "message_start",
      fmt::format(
          R"(,"message":{{"id":"msg_1","type":"message","role":"assistant","model":"{}","content":[],"stop_reason":null,"usage":{{"input_tokens":4,"cache_read_input_tokens":3,"output_tokens":1}}}})",
          name));
  event("ping", "");
  if (tools) {
    event("content_block_start", R"(,"index":0,"content_block":{"type":"thinking","thinking":"","signature":""})");
    event("content_block_delta", R"(,"index":0,"delta":{"type":"thinking_delta","thinking":"let me see"})");
    event("content_block_delta", R"(,"index":0,"delta":{"type":"signature_delta","signature":"s"})");
    event("content_block_stop", R"(,"index":0)");
    event("content_block_start",
          R"(,"index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"weather","input":{}})");
    event("content_block_delta", R"(,"index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"})");
    event("content_block_delta", R"(,"index":1,"delta":{"type":"input_json_delta","partial_json":"\"Paris\"}"})");
    event("content_block_stop", R"(,"index":1)");
  } else {
    event("content_block_start", R"(,"index":0,"content_block":{"type":"text","text":""})");
    for (int i = 0; i < tokens; ++i) {
      event("content_block_delta",
            fmt::format(R"(,"index":0,"delta":{{"type":"text_delta","text":"{}t{} "}})", i == 0 ? lead : "", i));
    }
    event("content_block_stop", R"(,"index":0)");
  }
  event("message_delta",
        fmt::format(R"(,"delta":{{"stop_reason":"{}","stop_sequence":null}},"usage":{{"output_tokens":20}})",
                    tools ? "tool_use" : "end_turn"));
  event("message_stop", "");
  return out;
}

inline std::string embeddings(std::string_view name) {
  return fmt::format(
      R"({{"object":"list","data":[{{"object":"embedding","index":0,"embedding":[0.5,-0.25]}}],"model":"{}","usage":{{"prompt_tokens":7,"total_tokens":7}}}})",
      name);
}

inline std::string ranking(std::string_view name) {
  return fmt::format(
      R"({{"id":"r","model":"{}","results":[{{"index":1,"relevance_score":0.9}},{{"index":0,"relevance_score":0.1}}]}})",
      name);
}

}  // namespace spillway::net
