// Messages in OpenAI's form: reading them, and handing them to the chat template.
#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "api/request_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool"};

// A string, or an array of text parts, which are joined.
void read_content(FieldReader& reader, std::optional<std::string>& out) {
  const json::value* value = reader.find("content");
  if (!value) return;
  if (value->is_string()) {
    out = std::string(value->get_string());
    return;
  }
  if (!value->is_array()) {
    return reader.fail(ErrorKind::kInvalidFormat, "content",
                       "expected a string or an array of parts, found " + describe(*value));
  }
  out.emplace();
  for (const json::value& part : value->get_array()) {
    const json::object* object = part.if_object();
    const json::value* type = object ? object->if_contains("type") : nullptr;
    if (!type || !type->is_string()) {
      return reader.fail(ErrorKind::kInvalidFormat, "content", "expected parts with a type, found " + describe(part));
    }
    const bool refusal = type->get_string() == "refusal";  // what OpenAI's client sends back of an assistant's turn
    const json::value* text = object->if_contains(refusal ? "refusal" : "text");
    if (!refusal && type->get_string() != "text") {
      return reader.fail(ErrorKind::kInvalidParameters, "content",
                         fmt::format("expected parts of type text (this model reads no other), found '{}'",
                                     std::string_view(type->get_string())));
    }
    if (!text || !text->is_string())
      return reader.fail(ErrorKind::kInvalidFormat, "content", "expected a text part's text");
    out->append(std::string_view(text->get_string()));
  }
}

void read_tool_calls(FieldReader& reader, const std::string& path, std::optional<ApiError>& failure,
                     std::vector<ToolCall>& out) {
  const json::array* items = reader.array("tool_calls");
  if (!items) return;
  for (size_t i = 0; i < items->size() && !reader.failed(); ++i) {
    const std::string where = fmt::format("{}.tool_calls[{}]", path, i);
    const json::value& item = (*items)[i];
    const json::value* function = item.is_object() ? item.get_object().if_contains("function") : nullptr;
    if (!function || !function->is_object()) {
      return reader.fail(ErrorKind::kInvalidFormat, fmt::format("tool_calls[{}].function", i), "expected an object");
    }
    ToolCall call;
    FieldReader(item.get_object(), where, failure).string("id", call.id);
    FieldReader fields(function->get_object(), where + ".function", failure);
    fields.string("name", call.name);
    const json::value* arguments = fields.find("arguments");
    if (arguments && arguments->is_object()) {
      call.arguments = json::serialize(*arguments);
    } else {
      fields.string("arguments", call.arguments);
    }
    if (call.name.empty()) fields.fail(ErrorKind::kInvalidFormat, "name", "expected the tool's name, found nothing");
    out.push_back(std::move(call));
  }
}

Message read_message(const json::object& object, const std::string& path, std::optional<ApiError>& failure,
                     const ChatParseOptions& options) {
  FieldReader reader(object, path, failure);
  Message message;
  size_t role = std::size(kRoles);
  reader.choice("role", {std::begin(kRoles), std::end(kRoles)}, role);
  if (!reader.failed() && role == std::size(kRoles)) {
    reader.fail(ErrorKind::kInvalidFormat, "role",
                "expected one of system, developer, user, assistant, tool, found nothing");
  }
  if (reader.failed()) return message;
  message.role = static_cast<Role>(role);
  read_content(reader, message.content);
  reader.string("name", message.name);
  reader.string("reasoning_content", message.reasoning_content);
  reader.string("tool_call_id", message.tool_call_id);
  reader.boolean("prefix", message.prefix);
  read_tool_calls(reader, path, failure, message.tool_calls);
  if (reader.failed()) return message;
  const bool assistant = message.role == Role::kAssistant;
  if (!message.content && !(assistant && (!message.tool_calls.empty() || message.prefix))) {
    reader.fail(ErrorKind::kInvalidFormat, "content", "expected a string, found nothing");
  }
  if (!message.tool_calls.empty() && !assistant) {
    reader.fail(ErrorKind::kInvalidFormat, "tool_calls", "is only allowed in assistant messages");
  }
  if (message.role == Role::kTool && message.tool_call_id.empty()) {
    reader.fail(ErrorKind::kInvalidFormat, "tool_call_id",
                "expected the id of the call that this answers, found nothing");
  }
  if (message.reasoning_content && options.strict_reasoning_content && !message.prefix) {
    reader.fail(ErrorKind::kInvalidFormat, "reasoning_content", "must not be sent back in messages");
  }
  return message;
}

json::value arguments_value(const std::string& arguments, bool as_object) {
  if (!as_object) return json::value(arguments);
  boost::system::error_code failure;
  json::value parsed = json::parse(arguments, failure);
  return failure ? json::value(arguments) : std::move(parsed);
}

}  // namespace

std::string_view role_name(Role role) { return kRoles[size_t(role)]; }

void read_messages(FieldReader& reader, std::optional<ApiError>& failure, const ChatParseOptions& options,
                   std::vector<Message>& out) {
  const json::array* items = reader.array("messages");
  if (reader.failed()) return;
  if (!items || items->empty()) {
    return reader.fail(
        ErrorKind::kInvalidFormat, "messages",
        "expected an array with at least one message, found " + std::string(items ? "an empty one" : "nothing"));
  }
  for (size_t i = 0; i < items->size() && !reader.failed(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    const json::value& item = (*items)[i];
    if (!item.is_object())
      return reader.fail(ErrorKind::kInvalidFormat, path, "expected an object, found " + describe(item));
    out.push_back(read_message(item.get_object(), path, failure, options));
    if (!reader.failed() && out.back().prefix && (i + 1 != items->size() || out.back().role != Role::kAssistant)) {
      reader.fail(ErrorKind::kInvalidFormat, path + ".prefix",
                  "is only allowed on the last message, of role assistant");
    }
  }
}

json::array template_messages(const ChatRequest& request, bool arguments_as_objects) {
  json::array out;
  for (const Message& message : request.messages) {
    json::object object;
    // Published templates know no "developer"; OpenAI defines it as the newer name of "system".
    object["role"] = message.role == Role::kDeveloper ? "system" : role_name(message.role);
    object["content"] = message.content ? json::value(*message.content) : json::value(nullptr);
    if (!message.name.empty()) object["name"] = message.name;
    if (message.reasoning_content && message.role == Role::kAssistant)
      object["reasoning_content"] = *message.reasoning_content;
    if (message.prefix) object["prefix"] = true;
    if (!message.tool_call_id.empty()) object["tool_call_id"] = message.tool_call_id;
    if (!message.tool_calls.empty()) {
      json::array calls;
      for (const ToolCall& call : message.tool_calls) {
        calls.push_back(json::object{
            {"id", call.id},
            {"type", "function"},
            {"function",
             json::object{{"name", call.name}, {"arguments", arguments_value(call.arguments, arguments_as_objects)}}}});
      }
      object["tool_calls"] = std::move(calls);
    }
    out.push_back(std::move(object));
  }
  return out;
}

json::value template_tools(const ChatRequest& request) {
  if (request.tools.empty() || request.tool_choice.kind == ToolChoice::Kind::kNone) return nullptr;
  json::array out;
  for (const Tool& tool : request.tools) out.push_back(tool.source);
  return out;
}

}  // namespace spillway::api
