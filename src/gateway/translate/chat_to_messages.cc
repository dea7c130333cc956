// A chat completion's request in the words of Anthropic's messages.
#include <fmt/format.h>

#include <algorithm>

#include "gateway/translate/documents.h"
#include "gateway/translate/json_parts.h"
#include "gateway/translate/translate.h"

namespace spillway::gateway {
namespace {

constexpr int64_t kThinkingTokensMin = 1024;
constexpr double kTopPOfThinkingMin = 0.95;

Error cannot(std::string_view what) { return invalid(fmt::format("{} cannot be said in Anthropic's dialect", what)); }

// Anthropic refuses text without a letter, also as a stop sequence.
bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == text.npos; }

// Ids of calls as it takes them; other upstreams' may hold dots and colons.
std::string call_id(std::string_view id) {
  std::string out(id);
  for (char& c : out) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    if (!plain) c = '_';
  }
  return out;
}

Result<json::object> image_block(const json::object& part) {
  std::string_view url;
  if (const json::object* image = object_of(part, "image_url")) url = text_of(*image, "url");
  if (url.empty()) url = text_of(part, "image_url");
  if (url.empty()) return invalid("image_url: expected a URL, found none");
  json::object source;
  if (url.starts_with("data:")) {
    const size_t comma = url.find(',');
    const std::string_view head = url.substr(5, comma == url.npos ? 0 : comma - 5);
    if (!head.ends_with(";base64")) return invalid("image_url: expected data:TYPE;base64,DATA, found another form");
    std::string_view type = head.substr(0, head.size() - 7);
    if (type == "image/jpg") type = "image/jpeg";
    source = {{"type", "base64"}, {"media_type", type}, {"data", url.substr(comma + 1)}};
  } else {
    source = {{"type", "url"}, {"url", url}};
  }
  return json::object{{"type", "image"}, {"source", std::move(source)}};
}

// Content as blocks; text alone becomes one block, blank text none.
Result<json::array> blocks_of(const json::value* content) {
  json::array blocks;
  if (content == nullptr) return blocks;
  if (content->is_string()) {
    if (!is_blank(content->get_string())) blocks.push_back({{"type", "text"}, {"text", content->get_string()}});
    return blocks;
  }
  if (!content->is_array()) return invalid("content: expected a string or a list of parts");
  for (const json::value& value : content->get_array()) {
    const json::object* part = value.if_object();
    if (part == nullptr) return invalid("content: expected parts that are objects");
    const std::string_view type = text_of(*part, "type");
    if (type == "text" || type == "refusal") {
      const std::string_view text = text_of(*part, type);
      if (!is_blank(text)) blocks.push_back({{"type", "text"}, {"text", text}});
    } else if (type == "image_url") {
      SW_ASSIGN(auto block, image_block(*part));
      blocks.push_back(std::move(block));
    } else if (type == "file") {
      SW_ASSIGN(auto block, document_of_file(*part));
      blocks.push_back(std::move(block));
    } else {
      return cannot(fmt::format("a part of type \"{}\"", type.substr(0, 32)));
    }
  }
  return blocks;
}

class Writer {
 public:
  Writer(const json::object& from, std::string_view model, int64_t max_tokens) : from_(from) {
    to_["model"] = model;
    const int64_t named = number_of(from_, "max_completion_tokens");
    max_tokens_ = named > 0 ? named : number_of(from_, "max_tokens") > 0 ? number_of(from_, "max_tokens") : max_tokens;
  }

  Result<std::string> write() {
    SW_TRY(refuse_what_cannot_be_said());
    SW_TRY(messages());
    SW_TRY(tools());
    SW_TRY(sampling());
    thinking();
    format();
    to_["max_tokens"] = max_tokens_;
    return json::serialize(to_);
  }

 private:
  Status refuse_what_cannot_be_said() const {
    if (number_of(from_, "n") > 1) return cannot("n above 1");
    if (truth_of(from_, "logprobs")) return cannot("logprobs");
    if (const json::array* old = array_of(from_, "functions"); old != nullptr && !old->empty())
      return cannot("functions (the older form of tools)");
    if (const json::object* format = object_of(from_, "response_format")) {
      const std::string_view type = text_of(*format, "type");
      if (type != "text" && type != "json_schema")
        return cannot(fmt::format("a response_format of type {}", type.substr(0, 32)));
    }
    const json::object* choice = object_of(from_, "tool_choice");
    if (choice != nullptr && object_of(*choice, "function") == nullptr) {
      return cannot(fmt::format("a tool_choice of type \"{}\"", text_of(*choice, "type").substr(0, 32)));
    }
    return {};
  }

  // Consecutive messages of one role become one: results of tools are the user's there.
  void add(std::string_view role, json::array blocks) {
    if (blocks.empty()) return;
    json::array& all = messages_;
    if (!all.empty() && text_of(all.back().get_object(), "role") == role) {
      json::array& content = all.back().get_object()["content"].get_array();
      for (json::value& block : blocks) content.push_back(std::move(block));
      return;
    }
    all.push_back({{"role", role}, {"content", std::move(blocks)}});
  }

  Status messages() {
    const json::array* list = array_of(from_, "messages");
    if (list == nullptr) return invalid("messages: expected a list");
    for (const json::value& value : *list) {
      const json::object* message = value.if_object();
      if (message == nullptr) return invalid("messages: expected objects");
      SW_TRY(take(*message));
    }
    // Anthropic wants a message: instructions alone are it.
    if (messages_.empty() && !system_.empty())
      add("user", {json::object{{"type", "text"}, {"text", std::exchange(system_, {})}}});
    if (!system_.empty()) to_["system"] = system_;
    to_["messages"] = std::move(messages_);
    return {};
  }

  Status take(const json::object& message) {
    const std::string_view role = text_of(message, "role");
    SW_ASSIGN(json::array blocks, blocks_of(member_of(message, "content")));
    if (role == "system" || role == "developer") {
      for (const json::value& block : blocks) {
        if (!system_.empty()) system_ += "\n\n";
        system_ += text_of(block.get_object(), "text");
      }
    } else if (role == "user") {
      add(role, std::move(blocks));
    } else if (role == "assistant") {
      SW_TRY(tool_calls(message, blocks));
      add(role, std::move(blocks));
    } else if (role == "tool") {
      json::object result{{"type", "tool_result"}, {"tool_use_id", call_id(text_of(message, "tool_call_id"))}};
      result["content"] = std::move(blocks);
      add("user", {std::move(result)});
    } else {
      return cannot(fmt::format("the role \"{}\"", role.substr(0, 32)));
    }
    return {};
  }

  static Status tool_calls(const json::object& message, json::array& blocks) {
    const json::array* calls = array_of(message, "tool_calls");
    if (calls == nullptr) return {};
    for (const json::value& value : *calls) {
      SW_ASSIGN(const json::object* function, function_of(value));
      const json::object& call = value.get_object();
      blocks.push_back({{"type", "tool_use"},
                        {"id", call_id(text_of(call, "id"))},
                        {"name", text_of(*function, "name")},
                        {"input", input_of_call(text_of(*function, "arguments"))}});
    }
    return {};
  }

  Status tools() {
    const json::array* list = array_of(from_, "tools");
    if (list == nullptr || list->empty()) return {};
    json::array tools;
    for (const json::value& value : *list) {
      const json::object* tool = value.if_object();
      const json::object* function = tool == nullptr ? nullptr : object_of(*tool, "function");
      if (function == nullptr) return cannot("a tool that is no function");
      json::object one{{"name", text_of(*function, "name")}};
      copy_member(*function, "description", one);
      one["input_schema"] = json::object{{"type", "object"}};
      copy_member(*function, "parameters", one, "input_schema");
      if (json::object* schema = one["input_schema"].if_object(); schema != nullptr && !schema->contains("type"))
        (*schema)["type"] = "object";
      if (truth_of(*function, "strict")) one["strict"] = true;
      tools.push_back(std::move(one));
    }
    to_["tools"] = std::move(tools);
    tool_choice();
    return {};
  }

  void tool_choice() {
    json::object choice{{"type", "auto"}};
    if (const json::object* named = object_of(from_, "tool_choice")) {
      if (const json::object* function = object_of(*named, "function")) {
        choice = {{"type", "tool"}, {"name", text_of(*function, "name")}};
      }
    } else if (const std::string_view word = text_of(from_, "tool_choice"); word == "none") {
      choice["type"] = "none";
    } else if (word == "required") {
      choice["type"] = "any";
    }
    const json::value* parallel = member_of(from_, "parallel_tool_calls");
    const bool one_only = parallel != nullptr && parallel->is_bool() && !parallel->get_bool();
    if (one_only && choice["type"] != "none") choice["disable_parallel_tool_use"] = true;
    to_["tool_choice"] = std::move(choice);
  }

  void format() {
    const json::object* format = object_of(from_, "response_format");
    const json::object* holder = format == nullptr ? nullptr : object_of(*format, "json_schema");
    if (holder == nullptr) return;
    json::object out{{"type", "json_schema"}};
    copy_member(*holder, "schema", out);
    to_["output_config"] = json::object{{"format", std::move(out)}};
  }

  Status sampling() {
    for (const char* same : {"stream", "top_k"}) copy_member(from_, same, to_);
    temperature_or_top_p();
    json::array stops;
    if (const json::array* listed = array_of(from_, "stop"))
      stops = *listed;
    else if (const std::string_view stop = text_of(from_, "stop"); !stop.empty())
      stops.emplace_back(stop);
    for (const json::value& stop : stops) {
      if (stop.is_string() && is_blank(stop.get_string())) return cannot("a stop sequence without a letter");
    }
    if (!stops.empty()) to_["stop_sequences"] = std::move(stops);
    if (const std::string_view user = text_of(from_, "user"); !user.empty())
      to_["metadata"] = json::object{{"user_id", user}};
    return {};
  }

  // Its newer models take one of the two: the temperature, unless that says nothing.
  void temperature_or_top_p() {
    const json::value* temperature = member_of(from_, "temperature");
    const json::value* top_p = member_of(from_, "top_p");
    if (top_p != nullptr && (!top_p->is_number() || top_p->to_number<double>() >= 1)) top_p = nullptr;
    if (temperature != nullptr && !temperature->is_number()) temperature = nullptr;
    if (temperature != nullptr && (top_p == nullptr || temperature->to_number<double>() != 1)) {
      to_["temperature"] = std::min(1.0, temperature->to_number<double>());
    } else if (top_p != nullptr) {
      to_["top_p"] = *top_p;
    }
  }

  // Not where a call is forced, nor where the assistant has begun its turn: its signed thinking is not there to be
  // given back.
  bool may_think() const {
    if (const json::object* choice = object_of(to_, "tool_choice")) {
      if (const std::string_view type = text_of(*choice, "type"); type == "any" || type == "tool") return false;
    }
    const json::array& messages = to_.at("messages").get_array();
    if (messages.empty()) return true;
    const json::object& last = messages.back().get_object();
    if (text_of(last, "role") == "assistant") return false;
    return std::ranges::none_of(last.at("content").get_array(), [](const json::value& block) {
      return text_of(block.get_object(), "type") == "tool_result";
    });
  }

  // Effort becomes a budget; Anthropic wants room for the answer beside it, and no temperature.
  void thinking() {
    const std::string_view effort = text_of(from_, "reasoning_effort");
    const json::object* named = object_of(from_, "thinking");
    const bool asked = named != nullptr ? text_of(*named, "type") == "enabled"
                                        : !effort.empty() && effort != "none" && effort != "minimal";
    if (!asked || !may_think()) return;
    int64_t budget = effort == "low" ? kThinkingTokensMin : effort == "high" || effort == "xhigh" ? 16384 : 4096;
    if (named != nullptr && number_of(*named, "budget_tokens") > 0)
      budget = std::max(kThinkingTokensMin, number_of(*named, "budget_tokens"));
    to_["thinking"] = json::object{{"type", "enabled"}, {"budget_tokens", budget}};
    max_tokens_ = std::max(max_tokens_, budget + kThinkingTokensMin);
    to_.erase("temperature");
    to_.erase("top_k");
    if (const json::value* top_p = member_of(to_, "top_p");
        top_p != nullptr && top_p->to_number<double>() < kTopPOfThinkingMin)
      to_.erase("top_p");
  }

  const json::object& from_;
  json::object to_;
  json::array messages_;
  std::string system_;
  int64_t max_tokens_ = 0;
};

}  // namespace

Result<std::string> chat_to_messages(std::string_view body, std::string_view model, int64_t max_tokens) {
  SW_ASSIGN(const json::object from, parse_json_object(body));
  return Writer(from, model, max_tokens).write();
}

}  // namespace spillway::gateway
