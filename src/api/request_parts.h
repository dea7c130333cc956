// The parts that several requests have in common, read from their JSON objects. Failures are left in the reader.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <vector>

#include "api/chat.h"
#include "api/field_reader.h"

namespace spillway::api {

inline constexpr int kChoicesMax = 128;
inline constexpr int kTopLogprobsMax = 20;
inline constexpr size_t kStopsMax = 16;
inline constexpr size_t kToolsMax = 128;
inline constexpr int64_t kTokensMax = 1 << 30;

// max_tokens_min: 0 where an echo may ask for no new tokens.
void read_sampling(FieldReader& reader, Sampling& out, int max_tokens_min = 1);
void read_stream(FieldReader& reader, StreamOptions& out);
void read_format(FieldReader& reader, ResponseFormat& out);
void read_scheduling(FieldReader& reader, RequestPriority& priority, std::optional<int64_t>& deadline_ms);
void read_ids(FieldReader& reader, std::string_view key, std::vector<int32_t>& out);

// "tools" and "tool_choice" in OpenAI's form.
void read_tools(FieldReader& reader, std::optional<ApiError>& failure, std::vector<Tool>& out);
// A choice of allowed tools takes the others away.
void read_tool_choice(FieldReader& reader, std::optional<ApiError>& failure, std::vector<Tool>& tools, ToolChoice& out);
bool is_tool_name(std::string_view name);

// "messages" in OpenAI's form, and the rules of the conversation.
void read_messages(FieldReader& reader, std::optional<ApiError>& failure, const ChatParseOptions& options,
                   std::vector<Message>& out);

}  // namespace spillway::api
