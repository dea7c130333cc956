#include "api/chat.h"
#include "api/request_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

void read_bool_kwarg(const json::object& kwargs, std::string_view key, std::optional<bool>& out) {
  const json::value* value = kwargs.if_contains(key);
  if (value && value->is_bool()) out = value->get_bool();
}

// The spellings of "think or not" that clients of different servers send.
void read_thinking(FieldReader& reader, ChatRequest& out) {
  if (const json::object* kwargs = reader.object("chat_template_kwargs")) {
    out.chat_template_kwargs = *kwargs;
    read_bool_kwarg(*kwargs, "enable_thinking", out.thinking);
    read_bool_kwarg(*kwargs, "thinking", out.thinking);
  }
  if (reader.find("enable_thinking")) {
    bool enabled = true;
    reader.boolean("enable_thinking", enabled);
    out.thinking = enabled;
  }
  if (const json::object* thinking = reader.object("thinking")) {
    const json::value* type = thinking->if_contains("type");
    const json::string* name = type ? type->if_string() : nullptr;
    if (name && (*name == "enabled" || *name == "adaptive")) {
      out.thinking = true;
    } else if (name && *name == "disabled") {
      out.thinking = false;
    } else {
      reader.fail(ErrorKind::kInvalidParameters, "thinking.type",
                  "expected enabled or disabled, found " + (type ? describe(*type) : "nothing"));
    }
  }
  reader.string("reasoning_effort", out.reasoning_effort);
  if (out.reasoning_effort == "none" && !out.thinking) out.thinking = false;
}

void read_logprobs(FieldReader& reader, ChatRequest& out) {
  reader.boolean("logprobs", out.logprobs);
  reader.integer("top_logprobs", 0, kTopLogprobsMax, out.top_logprobs);
  if (!reader.failed() && out.top_logprobs > 0 && !out.logprobs) {
    reader.fail(ErrorKind::kInvalidParameters, "top_logprobs", "needs logprobs to be true");
  }
}

void read_user(FieldReader& reader, std::string& out) {
  reader.string("user", out);
  reader.string("user_id", out);
}

// Fields without which the answer would not be what was asked for: refused rather than passed over.
void refuse_what_is_not_there(FieldReader& reader) {
  const auto refuse = [&](const char* key, const char* why) { reader.fail(ErrorKind::kInvalidParameters, key, why); };
  if (const json::value* functions = reader.find("functions"); functions && *functions != json::array())
    refuse("functions", "is not supported; use tools and tool_choice");
  if (reader.find("audio")) refuse("audio", "is not supported; this model writes text");
  if (reader.find("web_search_options")) refuse("web_search_options", "is not supported; give a tool that searches");
  const json::value* modalities = reader.find("modalities");
  if (modalities && *modalities != json::array{"text"}) {
    reader.fail(ErrorKind::kInvalidParameters, "modalities", "expected [\"text\"], found " + describe(*modalities));
  }
}

}  // namespace

Parsed<ChatRequest> parse_chat_request(std::string_view body, const ChatParseOptions& options) {
  auto object = parse_body(body);
  if (!object) return object.error();
  return parse_chat_request(json::value(std::move(*object)), options);
}

Parsed<ChatRequest> parse_chat_request(const json::value& body, const ChatParseOptions& options) {
  if (!body.is_object()) {
    return ApiError{
        ErrorKind::kInvalidFormat, "The request body: expected a JSON object, found " + describe(body), {}, {}};
  }
  std::optional<ApiError> failure;
  FieldReader reader(body.get_object(), "", failure);
  ChatRequest out;
  reader.string("model", out.model);
  read_messages(reader, failure, options, out.messages);
  read_sampling(reader, out.sampling);
  read_stream(reader, out.stream);
  read_format(reader, out.format);
  refuse_what_is_not_there(reader);
  read_tools(reader, failure, out.tools);
  read_tool_choice(reader, failure, out.tools, out.tool_choice);
  reader.boolean("parallel_tool_calls", out.parallel_tool_calls);
  read_logprobs(reader, out);
  reader.boolean("add_generation_prompt", out.add_generation_prompt);
  reader.boolean("continue_final_message", out.continue_final_message);
  read_thinking(reader, out);
  read_scheduling(reader, out.priority, out.deadline_ms);
  read_user(reader, out.user);
  if (const json::object* metadata = reader.object("metadata")) out.metadata = *metadata;
  if (failure) return *failure;
  const Message& last = out.messages.back();
  if (last.prefix) out.continue_final_message = true;
  if (out.continue_final_message && last.role != Role::kAssistant) {
    reader.fail(ErrorKind::kInvalidFormat, "continue_final_message", "needs a last message of role assistant");
  }
  if (failure) return *failure;
  return out;
}

}  // namespace spillway::api
