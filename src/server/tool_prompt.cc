#include "server/tool_prompt.h"

#include <boost/json/serialize.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace spillway::server {
namespace {

namespace json = boost::json;
using text::ToolStyle;

constexpr std::string_view kDeepseekCallsBegin = "<｜tool▁calls▁begin｜>";
constexpr std::string_view kDeepseekCallsEnd = "<｜tool▁calls▁end｜>";

std::string_view text_of(const json::object& message, std::string_view key) {
  const json::value* value = message.if_contains(key);
  return value && value->is_string() ? std::string_view(value->get_string()) : std::string_view();
}

// One call as the style writes it.
std::string written_call(ToolStyle style, const std::string& name, const std::string& arguments) {
  switch (style) {
    case ToolStyle::kDeepseek:
      return "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n" + arguments +
             "\n```<｜tool▁call▁end｜>";
    case ToolStyle::kLlama:
      return "{\"name\": " + name + ", \"parameters\": " + arguments + "}";
    case ToolStyle::kHermes:
    case ToolStyle::kNone:
      break;
  }
  return "<tool_call>\n{\"name\": " + name + ", \"arguments\": " + arguments + "}\n</tool_call>";
}

std::string enclosed(ToolStyle style, const std::string& calls) {
  if (style != ToolStyle::kDeepseek) return calls;
  return std::string(kDeepseekCallsBegin) + calls + std::string(kDeepseekCallsEnd);
}

std::string written_calls(ToolStyle style, const json::array& calls) {
  std::string out;
  for (const json::value& call : calls) {
    const json::object& function = call.at("function").as_object();
    const json::value& arguments = function.at("arguments");
    const std::string name =
        style == ToolStyle::kDeepseek ? std::string(text_of(function, "name")) : json::serialize(function.at("name"));
    if (!out.empty()) out += "\n";
    out += written_call(style, name,
                        arguments.is_string() ? std::string(arguments.get_string()) : json::serialize(arguments));
  }
  return enclosed(style, out);
}

std::string description(ToolStyle style, const json::array& tools) {
  std::string out =
      "# Tools\n\nYou may call one or more functions to assist with the request. These are the functions, each with "
      "the JSON schema of its parameters:\n<tools>";
  for (const json::value& tool : tools) out += "\n" + json::serialize(tool);
  const bool quoted = style != ToolStyle::kDeepseek;
  out += "\n</tools>\n\nTo call a function, answer in this form, with its name and a JSON object of its arguments:\n";
  return out + enclosed(style, written_call(style, quoted ? "\"NAME\"" : "NAME", "{\"PARAMETER\": VALUE}"));
}

std::string joined(std::string_view first, std::string_view between, std::string_view second) {
  if (first.empty() || second.empty()) between = {};
  return std::string(first) + std::string(between) + std::string(second);
}

// Into the last system message (some templates show no other), else into one of its own; where there are none, into
// the first of the user's.
void describe_tools(const ToolSupport& support, const std::string& text, json::array& messages) {
  const std::string_view role = support.system ? "system" : "user";
  json::object* found = nullptr;
  for (json::value& message : messages) {
    if (text_of(message.as_object(), "role") != role) continue;
    found = &message.as_object();
    if (!support.system) break;
  }
  if (found) {
    const std::string before(text_of(*found, "content"));
    (*found)["content"] = support.system ? joined(before, "\n\n", text) : joined(text, "\n\n", before);
    return;
  }
  messages.insert(messages.begin(), json::object{{"role", role}, {"content", text}});
}

// Results that stand together become one message of the user.
json::array results_as_user(const json::array& messages) {
  json::array out;
  bool open = false;
  for (const json::value& value : messages) {
    const json::object& message = value.as_object();
    const bool result = text_of(message, "role") == "tool";
    if (!result) {
      out.push_back(message);
    } else {
      const std::string text = "<tool_response>\n" + std::string(text_of(message, "content")) + "\n</tool_response>";
      if (!open) out.push_back(json::object{{"role", "user"}});
      json::object& user = out.back().as_object();
      user["content"] = open ? std::string(text_of(user, "content")) + "\n" + text : text;
    }
    open = result;
  }
  return out;
}

size_t count(std::string_view text, std::string_view what) {
  size_t found = 0;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + what.size())) ++found;
  return found;
}

}  // namespace

ToolSupport probe_tools(const text::ChatTemplate& chat_template, ToolStyle style, const json::object& tokens) {
  static const json::value kTools = json::array{json::object{
      {"type", "function"},
      {"function", json::object{{"name", "probe_tool"},
                                {"description", "probe"},
                                {"parameters", json::object{{"type", "object"}, {"properties", json::object()}}}}}}};
  const bool as_objects = style == ToolStyle::kHermes || style == ToolStyle::kLlama;
  const json::value arguments =
      as_objects ? json::value(json::object{{"key", "probe_call"}}) : json::value("{\"key\": \"probe_call\"}");
  const json::object user{{"role", "user"}, {"content", "probe"}};
  const auto render = [&](json::array messages, const json::value& tools) {
    json::object variables = tokens;
    variables["messages"] = std::move(messages);
    if (!tools.is_null()) variables["tools"] = tools;
    variables["add_generation_prompt"] = true;
    return chat_template.render(variables);
  };
  const auto conversation = [&](const json::value& content) {
    const json::object function{{"name", "probe_tool"}, {"arguments", arguments}};
    const json::object call{{"id", "probe00id"}, {"type", "function"}, {"function", function}};
    json::array messages{user};
    messages.push_back(json::object{{"role", "assistant"}, {"content", content}, {"tool_calls", json::array{call}}});
    messages.push_back(json::object{{"role", "tool"}, {"tool_call_id", "probe00id"}, {"content", "probe_result"}});
    return render(std::move(messages), kTools);
  };
  const auto shows = [](const Result<std::string>& rendered, std::string_view what) {
    return rendered.ok() && rendered->find(what) != std::string::npos;
  };

  ToolSupport support;
  support.tools = shows(render({user}, kTools), "probe_tool");
  support.system =
      shows(render({json::object{{"role", "system"}, {"content", "probe_system"}}, user}, nullptr), "probe_system");
  Result<std::string> rendered = conversation(nullptr);
  support.null_content = rendered.ok();
  if (!rendered.ok()) rendered = conversation("");
  support.calls =
      shows(rendered, "probe_call") && count(*rendered, kDeepseekCallsBegin) == count(*rendered, kDeepseekCallsEnd);
  support.results = shows(rendered, "probe_result");
  return support;
}

void supply_tools(const ToolSupport& support, ToolStyle style, const json::value& tools, json::array& messages) {
  style = call_style(style);
  for (json::value& value : messages) {
    json::object& message = value.as_object();
    const json::value* calls = message.if_contains("tool_calls");
    if (!calls) continue;
    if (!support.calls) {
      const std::string text = written_calls(style, calls->as_array());
      message.erase("tool_calls");
      message["content"] = joined(text_of(message, "content"), style == ToolStyle::kDeepseek ? "" : "\n", text);
    } else if (!support.null_content && message["content"].is_null()) {
      message["content"] = "";
    }
  }
  if (!support.results) messages = results_as_user(messages);
  if (!support.tools && tools.is_array()) describe_tools(support, description(style, tools.get_array()), messages);
}

}  // namespace spillway::server
