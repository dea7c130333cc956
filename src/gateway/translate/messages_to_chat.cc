// A request of Anthropic's messages in the words of OpenAI's chat completions.
#include <fmt/format.h>

#include "gateway/translate/documents.h"
#include "gateway/translate/json_parts.h"
#include "gateway/translate/translate.h"

namespace spillway::gateway {
namespace {

Error cannot(std::string_view what) { return invalid(fmt::format("{} cannot be said in OpenAI's dialect", what)); }

constexpr std::string_view kBetweenBlocks = "\n\n";

// The text of a string or of a list of text blocks.
Result<std::string> plain_text(const json::value* content, std::string_view where) {
  std::string text;
  if (content == nullptr) return text;
  if (content->is_string()) return std::string(content->get_string());
  if (!content->is_array()) return invalid(fmt::format("{}: expected a string or a list of blocks", where));
  for (const json::value& value : content->get_array()) {
    const json::object* block = value.if_object();
    if (block == nullptr || text_of(*block, "type") != "text")
      return cannot(fmt::format("{}: a block that is no text", where));
    if (!text.empty()) text += kBetweenBlocks;
    text += text_of(*block, "text");
  }
  return text;
}

Result<json::object> image_part(const json::object& block) {
  const json::object* source = object_of(block, "source");
  if (source == nullptr) return invalid("image: expected a source, found none");
  std::string url(text_of(*source, "url"));
  if (text_of(*source, "type") == "base64") {
    url = fmt::format("data:{};base64,{}", text_of(*source, "media_type"), text_of(*source, "data"));
  }
  if (url.empty()) return cannot("an image that is neither base64 nor a URL");
  return json::object{{"type", "image_url"}, {"image_url", json::object{{"url", std::move(url)}}}};
}

class Writer {
 public:
  Writer(const json::object& from, std::string_view model) : from_(from) { to_["model"] = model; }

  Result<std::string> write() {
    SW_ASSIGN(const std::string system, plain_text(member_of(from_, "system"), "system"));
    if (!system.empty()) messages_.push_back({{"role", "system"}, {"content", system}});
    SW_TRY(messages());
    to_["messages"] = std::move(messages_);
    SW_TRY(tools());
    sampling();
    format();
    return json::serialize(to_);
  }

 private:
  Status messages() {
    const json::array* list = array_of(from_, "messages");
    if (list == nullptr) return invalid("messages: expected a list");
    for (const json::value& value : *list) {
      const json::object* message = value.if_object();
      if (message == nullptr) return invalid("messages: expected objects");
      const std::string_view role = text_of(*message, "role");
      if (role != "user" && role != "assistant") return cannot(fmt::format("the role \"{}\"", role.substr(0, 32)));
      SW_TRY(role == "user" ? user(*message) : assistant(*message));
    }
    return {};
  }

  // Results of tools are messages of their own there, and come before what the user says.
  Status user(const json::object& message) {
    const json::array* blocks = array_of(message, "content");
    if (blocks == nullptr) {
      messages_.push_back({{"role", "user"}, {"content", text_of(message, "content")}});
      return {};
    }
    json::array parts;
    bool images = false;
    for (const json::value& value : *blocks) {
      const json::object* block = value.if_object();
      if (block == nullptr) return invalid("content: expected blocks that are objects");
      const std::string_view type = text_of(*block, "type");
      if (type == "text") {
        parts.push_back({{"type", "text"}, {"text", text_of(*block, "text")}});
      } else if (type == "image") {
        SW_ASSIGN(auto part, image_part(*block));
        parts.push_back(std::move(part));
        images = true;
      } else if (type == "document") {
        SW_TRY(document(*block, parts, images));
      } else if (type == "tool_result") {
        SW_TRY(tool_result(*block, parts, images));
      } else {
        return cannot(fmt::format("a block of type \"{}\"", type.substr(0, 32)));
      }
    }
    if (parts.empty()) return {};
    if (!images) {  // a string, as some upstreams take no lists
      std::string text;
      for (const json::value& part : parts) {
        if (!text.empty()) text += kBetweenBlocks;
        text += text_of(part.get_object(), "text");
      }
      messages_.push_back({{"role", "user"}, {"content", std::move(text)}});
    } else {
      messages_.push_back({{"role", "user"}, {"content", std::move(parts)}});
    }
    return {};
  }

  static Status document(const json::object& block, json::array& parts, bool& more_than_text) {
    SW_ASSIGN(json::array pieces, parts_of_document(block));
    for (json::value& piece : pieces) {
      more_than_text |= text_of(piece.get_object(), "type") != "text";
      parts.push_back(std::move(piece));
    }
    return {};
  }

  // Images and documents in a result follow as the user's: a tool's message holds text alone.
  Status tool_result(const json::object& block, json::array& parts, bool& images) {
    std::string text;
    if (const json::array* inner = array_of(block, "content")) {
      for (const json::value& value : *inner) {
        const json::object* piece = value.if_object();
        if (piece == nullptr) return invalid("tool_result: expected blocks that are objects");
        if (text_of(*piece, "type") == "image") {
          SW_ASSIGN(auto part, image_part(*piece));
          parts.push_back(std::move(part));
          images = true;
        } else if (text_of(*piece, "type") == "document") {
          SW_TRY(document(*piece, parts, images));
        } else {
          text += text_of(*piece, "text");
        }
      }
    } else {
      text = text_of(block, "content");
    }
    if (truth_of(block, "is_error")) text = "Error: " + text;
    messages_.push_back(
        {{"role", "tool"}, {"tool_call_id", text_of(block, "tool_use_id")}, {"content", std::move(text)}});
    return {};
  }

  // Thinking of earlier turns stays behind: these upstreams do not take it back.
  Status assistant(const json::object& message) {
    json::object out{{"role", "assistant"}};
    std::string text(text_of(message, "content"));
    json::array calls;
    if (const json::array* blocks = array_of(message, "content")) {
      for (const json::value& value : *blocks) {
        const json::object* block = value.if_object();
        if (block == nullptr) return invalid("content: expected blocks that are objects");
        const std::string_view type = text_of(*block, "type");
        if (type == "text") {
          text += text_of(*block, "text");
        } else if (type == "tool_use") {
          const json::value* input = member_of(*block, "input");
          calls.push_back(
              {{"id", text_of(*block, "id")},
               {"type", "function"},
               {"function", json::object{{"name", text_of(*block, "name")},
                                         {"arguments", input == nullptr ? "{}" : json::serialize(*input)}}}});
        } else if (type != "thinking" && type != "redacted_thinking") {
          return cannot(fmt::format("a block of type \"{}\"", type.substr(0, 32)));
        }
      }
    }
    if (text.empty() && !calls.empty())
      out["content"] = nullptr;
    else
      out["content"] = std::move(text);
    if (!calls.empty()) out["tool_calls"] = std::move(calls);
    messages_.push_back(std::move(out));
    return {};
  }

  Status tools() {
    SW_ASSIGN(const auto list, objects_of(from_, "tools"));
    if (list.empty()) return {};
    json::array tools;
    for (const json::object* tool : list) {
      const std::string_view type = text_of(*tool, "type");
      if (!type.empty() && type != "custom") return cannot(fmt::format("a tool of type \"{}\"", type.substr(0, 32)));
      json::object function{{"name", text_of(*tool, "name")}};
      copy_member(*tool, "description", function);
      copy_member(*tool, "input_schema", function, "parameters");
      if (truth_of(*tool, "strict")) function["strict"] = true;
      tools.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    to_["tools"] = std::move(tools);
    if (const json::object* choice = object_of(from_, "tool_choice")) tool_choice(*choice);
    return {};
  }

  void tool_choice(const json::object& choice) {
    const std::string_view type = text_of(choice, "type");
    if (type == "tool") {
      to_["tool_choice"] =
          json::object{{"type", "function"}, {"function", json::object{{"name", text_of(choice, "name")}}}};
    } else {
      to_["tool_choice"] = type == "any" ? "required" : type == "none" ? "none" : "auto";
    }
    if (truth_of(choice, "disable_parallel_tool_use")) to_["parallel_tool_calls"] = false;
  }

  void format() {
    const json::object* config = object_of(from_, "output_config");
    const json::object* format = object_of(config == nullptr ? from_ : *config, config ? "format" : "output_format");
    if (format == nullptr || text_of(*format, "type") != "json_schema") return;
    json::object holder{{"name", "output"}};
    copy_member(*format, "schema", holder);
    to_["response_format"] = json::object{{"type", "json_schema"}, {"json_schema", std::move(holder)}};
  }

  void sampling() {
    for (const char* same : {"max_tokens", "temperature", "top_p"}) copy_member(from_, same, to_);
    copy_member(from_, "stop_sequences", to_, "stop");
    if (truth_of(from_, "stream")) {
      to_["stream"] = true;
      to_["stream_options"] = json::object{{"include_usage", true}};
    }
    if (const json::object* metadata = object_of(from_, "metadata")) copy_member(*metadata, "user_id", to_, "user");
    effort();
  }

  // A budget of thinking, or the effort that newer models are given with adaptive thinking.
  void effort() {
    const json::object* config = object_of(from_, "output_config");
    const std::string_view named = config == nullptr ? std::string_view() : text_of(*config, "effort");
    const json::object* thinking = object_of(from_, "thinking");
    if (!named.empty()) to_["reasoning_effort"] = named == "low" || named == "medium" ? named : "high";
    if (thinking == nullptr || text_of(*thinking, "type") != "enabled") return;
    const int64_t budget = number_of(*thinking, "budget_tokens");
    to_["reasoning_effort"] = budget <= 2048 ? "low" : budget <= 8192 ? "medium" : "high";
  }

  const json::object& from_;
  json::object to_;
  json::array messages_;
};

}  // namespace

Result<std::string> messages_to_chat(std::string_view body, std::string_view model) {
  SW_ASSIGN(const json::object from, parse_json_object(body));
  return Writer(from, model).write();
}

}  // namespace spillway::gateway
