// A request to the responses API in the words of chat completions.
#include <fmt/format.h>

#include "gateway/translate/json_parts.h"
#include "gateway/translate/responses.h"

namespace spillway::gateway {
namespace {

Error cannot(std::string_view what) { return invalid(fmt::format("{} is not supported by this gateway", what)); }

Result<json::object> part_of(const json::object& part) {
  const std::string_view type = text_of(part, "type");
  if (type == "input_text" || type == "output_text" || type == "text")
    return json::object{{"type", "text"}, {"text", text_of(part, "text")}};
  if (type == "refusal") return json::object{{"type", "text"}, {"text", text_of(part, "refusal")}};
  if (type == "input_image") {
    json::object image;
    copy_member(part, "image_url", image, "url");
    copy_member(part, "detail", image);
    if (!image.contains("url")) return cannot("input_image: an image without image_url");
    return json::object{{"type", "image_url"}, {"image_url", std::move(image)}};
  }
  if (type == "input_file") {
    json::object file;
    copy_member(part, "filename", file);
    copy_member(part, "file_data", file);
    if (!file.contains("file_data")) return cannot("input_file: a file without file_data");
    return json::object{{"type", "file"}, {"file", std::move(file)}};
  }
  return cannot(fmt::format("input: a part of type \"{}\"", type.substr(0, 32)));
}

// A string where all of it is text, for some upstreams take no lists.
Result<json::value> content_of(const json::object& item, std::string_view member) {
  const json::value* content = member_of(item, member);
  if (content == nullptr) return json::value("");
  if (content->is_string()) return *content;
  if (!content->is_array()) return invalid(fmt::format("input: {}: expected a string or a list of parts", member));
  json::array parts;
  std::string text;
  bool plain = true;
  for (const json::value& value : content->get_array()) {
    const json::object* from = value.if_object();
    if (from == nullptr) return invalid(fmt::format("input: {}: expected parts that are objects", member));
    SW_ASSIGN(json::object part, part_of(*from));
    plain = plain && text_of(part, "type") == "text";
    if (plain) text.append(text.empty() ? "" : "\n\n").append(text_of(part, "text"));
    parts.push_back(std::move(part));
  }
  return plain ? json::value(text) : json::value(std::move(parts));
}

class Writer {
 public:
  explicit Writer(const json::object& from) : from_(from) {}

  Result<std::string> write() {
    SW_TRY(refuse_what_is_kept_elsewhere());
    if (text_of(from_, "model").empty()) return invalid("model: expected a name, found none");
    copy_member(from_, "model", to_);
    if (const std::string_view first = text_of(from_, "instructions"); !first.empty())
      messages_.push_back({{"role", "system"}, {"content", first}});
    SW_TRY(input());
    to_["messages"] = std::move(messages_);
    SW_TRY(tools());
    SW_TRY(format());
    settings();
    return json::serialize(to_);
  }

 private:
  Status refuse_what_is_kept_elsewhere() const {
    for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
      if (member_of(from_, name) != nullptr)
        return cannot(fmt::format("{}: responses are not kept here; send the whole conversation as input", name));
    }
    if (truth_of(from_, "background")) return cannot("background");
    if (number_of(from_, "top_logprobs") > 0) return cannot("top_logprobs");
    return {};
  }

  Status input() {
    const json::value* input = member_of(from_, "input");
    if (input != nullptr && input->is_string()) {
      messages_.push_back({{"role", "user"}, {"content", *input}});
      return {};
    }
    if (input == nullptr || !input->is_array()) return invalid("input: expected a string or a list of items");
    for (const json::value& value : input->get_array()) {
      const json::object* item = value.if_object();
      if (item == nullptr) return invalid("input: expected items that are objects");
      SW_TRY(take(*item));
    }
    return {};
  }

  Status take(const json::object& item) {
    const std::string_view type = text_of(item, "type");
    if (type == "reasoning") return {};  // of earlier turns: upstreams do not take it back
    if (type == "function_call") {
      json::object function{{"name", text_of(item, "name")}, {"arguments", text_of(item, "arguments")}};
      calls().push_back({{"id", text_of(item, "call_id")}, {"type", "function"}, {"function", std::move(function)}});
      return {};
    }
    if (type == "function_call_output") {
      SW_ASSIGN(json::value content, content_of(item, "output"));
      messages_.push_back(
          {{"role", "tool"}, {"tool_call_id", text_of(item, "call_id")}, {"content", std::move(content)}});
      return {};
    }
    if (!type.empty() && type != "message")
      return cannot(fmt::format("input: an item of type \"{}\"", type.substr(0, 32)));
    const std::string_view role = text_of(item, "role");
    if (role.empty()) return invalid("input: expected a role, found none");
    SW_ASSIGN(json::value content, content_of(item, "content"));
    messages_.push_back({{"role", role == "developer" ? "system" : role}, {"content", std::move(content)}});
    return {};
  }

  // Of the assistant's last message: calls stand beside its text there.
  json::array& calls() {
    if (messages_.empty() || text_of(messages_.back().get_object(), "role") != "assistant")
      messages_.push_back({{"role", "assistant"}, {"content", nullptr}});
    json::value& calls = messages_.back().get_object()["tool_calls"];
    return calls.is_array() ? calls.get_array() : calls.emplace_array();
  }

  Status tools() {
    SW_ASSIGN(const auto list, objects_of(from_, "tools"));
    if (list.empty()) return {};
    json::array tools;
    for (const json::object* tool : list) {
      if (text_of(*tool, "type") != "function")
        return cannot(fmt::format("tools: a tool of type \"{}\"", text_of(*tool, "type").substr(0, 32)));
      json::object function;
      for (const char* same : {"name", "description", "parameters", "strict"}) copy_member(*tool, same, function);
      tools.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    to_["tools"] = std::move(tools);
    copy_member(from_, "parallel_tool_calls", to_);
    const json::object* choice = object_of(from_, "tool_choice");
    if (choice == nullptr) {
      copy_member(from_, "tool_choice", to_);
    } else if (text_of(*choice, "type") == "function") {
      to_["tool_choice"] =
          json::object{{"type", "function"}, {"function", json::object{{"name", text_of(*choice, "name")}}}};
    } else {
      return cannot(fmt::format("a tool_choice of type \"{}\"", text_of(*choice, "type").substr(0, 32)));
    }
    return {};
  }

  Status format() {
    const json::object* text = object_of(from_, "text");
    if (text == nullptr) return {};
    copy_member(*text, "verbosity", to_);
    const json::object* format = object_of(*text, "format");
    const std::string_view type = format == nullptr ? "text" : text_of(*format, "type");
    if (type == "json_object") {
      to_["response_format"] = json::object{{"type", type}};
    } else if (type == "json_schema") {
      json::object schema;
      for (const char* same : {"name", "description", "schema", "strict"}) copy_member(*format, same, schema);
      to_["response_format"] = json::object{{"type", type}, {"json_schema", std::move(schema)}};
    } else if (type != "text") {
      return cannot(fmt::format("text: a format of type \"{}\"", type.substr(0, 32)));
    }
    return {};
  }

  void settings() {
    for (const char* same : {"temperature", "top_p", "user", "service_tier", "prompt_cache_key", "safety_identifier"})
      copy_member(from_, same, to_);
    copy_member(from_, "max_output_tokens", to_, "max_tokens");
    if (const json::object* reasoning = object_of(from_, "reasoning"))
      copy_member(*reasoning, "effort", to_, "reasoning_effort");
    if (!truth_of(from_, "stream")) return;
    to_["stream"] = true;
    to_["stream_options"] = json::object{{"include_usage", true}};
  }

  const json::object& from_;
  json::object to_;
  json::array messages_;
};

}  // namespace

Result<ResponsesRequest> responses_to_chat(std::string_view body) {
  ResponsesRequest request;
  SW_ASSIGN(request.asked, parse_json_object(body));
  SW_ASSIGN(request.chat, Writer(request.asked).write());
  request.stream = truth_of(request.asked, "stream");
  return request;
}

}  // namespace spillway::gateway
