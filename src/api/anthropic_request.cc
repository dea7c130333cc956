// Anthropic's Messages request, turned into a ChatRequest.
#include <fmt/format.h>

#include <boost/json/serialize.hpp>

#include "api/anthropic.h"
#include "api/request_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

using Failure = std::optional<ApiError>;

void add_text(std::optional<std::string>& out, std::string_view text) {
  if (!out) out.emplace();
  out->append(text);
}

// The text of a field that is a string or an array of text blocks.
void read_text(FieldReader& reader, Failure& failure, std::string_view key, std::optional<std::string>& out) {
  const json::value* value = reader.find(key);
  if (!value) return;
  if (value->is_string()) return add_text(out, value->get_string());
  const json::array* blocks = value->if_array();
  if (!blocks) {
    return reader.fail(ErrorKind::kInvalidFormat, key,
                       "expected a string or an array of text blocks, found " + describe(*value));
  }
  for (size_t i = 0; i < blocks->size() && !reader.failed(); ++i) {
    const std::string path = fmt::format("{}[{}]", key, i);
    const json::object* block = (*blocks)[i].if_object();
    if (!block)
      return reader.fail(ErrorKind::kInvalidFormat, path, "expected an object, found " + describe((*blocks)[i]));
    FieldReader fields(*block, reader.path_of(path), failure);
    std::string type, text;
    fields.string("type", type);
    if (type != "text")
      fields.fail(ErrorKind::kInvalidFormat, "type",
                  "expected 'text' (this model reads no other), found '" + type + "'");
    fields.string("text", text);
    add_text(out, text);
  }
}

// One message's blocks, handed over as messages: a turn of tool results and text becomes tool messages and a user
// message.
class Turn {
 public:
  Turn(Role role, Failure& failure, std::vector<Message>& out) : failure_(failure), out_(out) { message_.role = role; }

  void block(const json::object& object, const std::string& path) {
    FieldReader fields(object, path, failure_);
    std::string type;
    fields.string("type", type);
    const bool assistant = message_.role == Role::kAssistant;
    if (type == "text") {
      std::string text;
      fields.string("text", text);
      add_text(message_.content, text);
    } else if (type == "thinking" && assistant) {
      std::string thinking;
      fields.string("thinking", thinking);
      add_text(message_.reasoning_content, thinking);
    } else if (type == "tool_use" && assistant) {
      tool_use(fields);
    } else if (type == "tool_result" && !assistant) {
      tool_result(fields);
    } else {
      fields.fail(ErrorKind::kInvalidFormat, "type",
                  std::string("expected ") + (assistant ? "text, thinking or tool_use" : "text or tool_result") +
                      ", found '" + type + "'");
    }
  }

  void text(std::string_view content) { add_text(message_.content, content); }

  void end() {
    const bool empty = !message_.content && message_.tool_calls.empty();
    if (empty && message_.reasoning_content) message_.content = "";
    if (!empty || message_.reasoning_content) out_.push_back(std::move(message_));
  }

 private:
  void tool_use(FieldReader& fields) {
    ToolCall call;
    fields.string("id", call.id);
    fields.string("name", call.name);
    const json::object* input = fields.object("input");
    call.arguments = input ? json::serialize(*input) : "{}";
    if (call.id.empty()) fields.fail(ErrorKind::kInvalidFormat, "id", "expected a string, found nothing");
    if (call.name.empty()) fields.fail(ErrorKind::kInvalidFormat, "name", "expected the tool's name, found nothing");
    message_.tool_calls.push_back(std::move(call));
  }

  void tool_result(FieldReader& fields) {
    Message result;
    result.role = Role::kTool;
    fields.string("tool_use_id", result.tool_call_id);
    if (result.tool_call_id.empty())
      fields.fail(ErrorKind::kInvalidFormat, "tool_use_id", "expected a string, found nothing");
    read_text(fields, failure_, "content", result.content);
    if (!result.content) result.content = "";
    if (message_.content) out_.push_back(std::exchange(message_, Message{}));
    out_.push_back(std::move(result));
  }

  Message message_;
  Failure& failure_;
  std::vector<Message>& out_;
};

void read_turn(const json::object& object, const std::string& path, Failure& failure, std::vector<Message>& out) {
  FieldReader reader(object, path, failure);
  size_t role = 2;
  reader.choice("role", {"user", "assistant"}, role);
  if (role == 2) reader.fail(ErrorKind::kInvalidFormat, "role", "expected user or assistant, found nothing");
  const json::value* content = reader.find("content");
  if (!content)
    return reader.fail(ErrorKind::kInvalidFormat, "content", "expected a string or an array of blocks, found nothing");
  Turn turn(role == 0 ? Role::kUser : Role::kAssistant, failure, out);
  if (content->is_string()) {
    turn.text(content->get_string());
  } else if (const json::array* blocks = reader.array("content")) {
    for (size_t i = 0; i < blocks->size() && !reader.failed(); ++i) {
      const std::string where = fmt::format("content[{}]", i);
      const json::object* block = (*blocks)[i].if_object();
      if (!block)
        return reader.fail(ErrorKind::kInvalidFormat, where, "expected an object, found " + describe((*blocks)[i]));
      turn.block(*block, path + "." + where);
    }
  }
  turn.end();
}

void read_turns(FieldReader& reader, Failure& failure, ChatRequest& out) {
  std::optional<std::string> system;
  read_text(reader, failure, "system", system);
  if (system) {
    out.messages.emplace_back();
    out.messages.back().role = Role::kSystem;
    out.messages.back().content = std::move(system);
  }
  const json::array* turns = reader.array("messages");
  if (!turns || turns->empty()) {
    return reader.fail(
        ErrorKind::kInvalidFormat, "messages",
        std::string("expected an array with at least one message, found ") + (turns ? "an empty one" : "nothing"));
  }
  for (size_t i = 0; i < turns->size() && !reader.failed(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    const json::object* turn = (*turns)[i].if_object();
    if (!turn)
      return reader.fail(ErrorKind::kInvalidFormat, path, "expected an object, found " + describe((*turns)[i]));
    read_turn(*turn, path, failure, out.messages);
  }
  if (reader.failed()) return;
  if (out.messages.empty() || out.messages.back().role == Role::kSystem) {
    return reader.fail(ErrorKind::kInvalidFormat, "messages", "expected content in the last message, found none");
  }
  // A last message of the assistant is the beginning of the answer.
  Message& last = out.messages.back();
  if (last.role != Role::kAssistant) return;
  if (!last.tool_calls.empty()) {
    return reader.fail(ErrorKind::kInvalidFormat, "messages",
                       "expected results after the last message's tool_use, found none");
  }
  last.prefix = true;
  out.continue_final_message = true;
}

void read_messages_tools(FieldReader& reader, Failure& failure, std::vector<Tool>& out) {
  const json::array* items = reader.array("tools");
  if (!items) return;
  if (items->size() > kToolsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, "tools",
                       fmt::format("expected at most {}, found {}", kToolsMax, items->size()));
  }
  for (size_t i = 0; i < items->size() && !reader.failed(); ++i) {
    const std::string path = fmt::format("tools[{}]", i);
    const json::object* item = (*items)[i].if_object();
    if (!item)
      return reader.fail(ErrorKind::kInvalidFormat, path, "expected an object, found " + describe((*items)[i]));
    FieldReader fields(*item, path, failure);
    std::string type = "custom";
    fields.string("type", type);
    if (type != "custom") fields.fail(ErrorKind::kUnsupported, "type", "expected 'custom', found '" + type + "'");
    Tool tool;
    fields.string("name", tool.name);
    fields.string("description", tool.description);
    const json::object* schema = fields.object("input_schema");
    if (!schema) fields.fail(ErrorKind::kInvalidFormat, "input_schema", "expected an object, found nothing");
    if (!is_tool_name(tool.name)) {
      fields.fail(ErrorKind::kInvalidParameters, "name",
                  "expected 1 to 64 letters, digits, '_' or '-', found '" + tool.name + "'");
    }
    if (fields.failed()) return;
    tool.parameters = *schema;
    json::object function{{"name", tool.name}};
    if (!tool.description.empty()) function["description"] = tool.description;
    function["parameters"] = *schema;
    tool.source = json::object{{"type", "function"}, {"function", std::move(function)}};
    out.push_back(std::move(tool));
  }
}

void read_messages_tool_choice(FieldReader& reader, Failure& failure, ChatRequest& out) {
  using Kind = ToolChoice::Kind;
  out.tool_choice.kind = out.tools.empty() ? Kind::kNone : Kind::kAuto;
  const json::object* choice = reader.object("tool_choice");
  if (!choice) return;
  FieldReader fields(*choice, "tool_choice", failure);
  static constexpr Kind kKinds[] = {Kind::kNone, Kind::kAuto, Kind::kRequired, Kind::kFunction};
  size_t kind = std::size(kKinds);
  fields.choice("type", {"none", "auto", "any", "tool"}, kind);
  if (kind == std::size(kKinds))
    return fields.fail(ErrorKind::kInvalidFormat, "type", "expected none, auto, any or tool, found nothing");
  bool single = false;
  fields.boolean("disable_parallel_tool_use", single);
  out.parallel_tool_calls = !single;
  if (out.tools.empty() && kKinds[kind] >= Kind::kRequired)
    return fields.fail(ErrorKind::kInvalidParameters, "type", "needs tools");
  if (!out.tools.empty()) out.tool_choice.kind = kKinds[kind];
  if (kKinds[kind] != Kind::kFunction) return;
  fields.string("name", out.tool_choice.function);
  for (const Tool& tool : out.tools) {
    if (tool.name == out.tool_choice.function) return;
  }
  fields.fail(ErrorKind::kInvalidParameters, "name", "'" + out.tool_choice.function + "' is not one of the tools");
}

void read_thinking(FieldReader& reader, Failure& failure, ChatRequest& out) {
  const json::object* thinking = reader.object("thinking");
  if (!thinking) return;
  size_t kind = 3;
  FieldReader fields(*thinking, "thinking", failure);
  fields.choice("type", {"enabled", "adaptive", "disabled"}, kind);
  if (kind == 3)
    return fields.fail(ErrorKind::kInvalidFormat, "type", "expected enabled, adaptive or disabled, found nothing");
  out.thinking = kind < 2;
}

// Structured outputs: output_config.format, and output_format as the beta had it.
void read_output_format(FieldReader& reader, Failure& failure, ChatRequest& out) {
  const json::object* format = reader.object("output_format");
  std::string path = "output_format";
  if (const json::object* config = reader.object("output_config")) {
    path = "output_config.format";
    format = FieldReader(*config, "output_config", failure).object("format");
  }
  if (!format) return;
  FieldReader fields(*format, path, failure);
  std::string type;
  fields.string("type", type);
  if (type != "json_schema") {
    return fields.fail(ErrorKind::kInvalidFormat, "type", "expected 'json_schema', found '" + type + "'");
  }
  const json::object* schema = fields.object("schema");
  if (!schema) return fields.fail(ErrorKind::kInvalidFormat, "schema", "expected a JSON schema object, found nothing");
  out.format = {ResponseFormat::Kind::kJsonSchema, *schema};
}

void read_stop_sequences(FieldReader& reader, std::vector<std::string>& out) {
  const json::array* items = reader.array("stop_sequences");
  if (!items) return;
  if (items->size() > kStopsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, "stop_sequences",
                       fmt::format("expected at most {}, found {}", kStopsMax, items->size()));
  }
  for (const json::value& item : *items) {
    if (!item.is_string() || item.get_string().empty()) {
      return reader.fail(ErrorKind::kInvalidFormat, "stop_sequences",
                         "expected strings that are not empty, found " + describe(item));
    }
    out.emplace_back(item.get_string());
  }
}

Parsed<ChatRequest> parse(const json::value& body, bool needs_max_tokens) {
  if (!body.is_object()) {
    return ApiError{
        ErrorKind::kInvalidFormat, "The request body: expected a JSON object, found " + describe(body), {}, {}};
  }
  Failure failure;
  FieldReader reader(body.get_object(), "", failure);
  ChatRequest out;
  reader.string("model", out.model);
  read_turns(reader, failure, out);
  read_sampling(reader, out.sampling);
  if (needs_max_tokens && !out.sampling.max_tokens) {
    reader.fail(ErrorKind::kInvalidFormat, "max_tokens", "expected an integer of at least 1, found nothing");
  }
  if (out.sampling.n != 1)
    reader.fail(ErrorKind::kInvalidParameters, "n", "expected 1, found " + std::to_string(out.sampling.n));
  read_stop_sequences(reader, out.sampling.stop);
  reader.boolean("stream", out.stream.stream);
  read_messages_tools(reader, failure, out.tools);
  read_messages_tool_choice(reader, failure, out);
  read_thinking(reader, failure, out);
  read_output_format(reader, failure, out);
  read_scheduling(reader, out.priority, out.deadline_ms);
  if (const json::object* metadata = reader.object("metadata")) {
    out.metadata = *metadata;
    FieldReader(*metadata, "metadata", failure).string("user_id", out.user);
  }
  if (failure) return *failure;
  return out;
}

}  // namespace

Parsed<ChatRequest> parse_messages_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  return parse(json::value(std::move(*object)), true);
}

Parsed<ChatRequest> parse_messages_request(const json::value& body) { return parse(body, true); }

Parsed<ChatRequest> parse_count_tokens_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  return parse(json::value(std::move(*object)), false);
}

}  // namespace spillway::api
