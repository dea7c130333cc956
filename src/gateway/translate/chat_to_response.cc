// Chat completions, whole and streamed, as responses of the responses API.
#include <fmt/format.h>

#include <map>
#include <vector>

#include "gateway/translate/answers.h"
#include "gateway/translate/responses.h"
#include "net/sse.h"

namespace spillway::gateway {
namespace {

std::string_view reasoning_of(const json::object& from) {
  const std::string_view text = text_of(from, "reasoning_content");
  return text.empty() ? text_of(from, "reasoning") : text;
}

json::object text_part(std::string_view text) {
  return {{"type", "output_text"}, {"text", text}, {"annotations", json::array()}, {"logprobs", json::array()}};
}
json::object reasoning_part(std::string_view text) { return {{"type", "reasoning_text"}, {"text", text}}; }

// One item of the output.
struct Item {
  enum class Kind { kReasoning, kText, kCall } kind = Kind::kText;
  std::string id;
  std::string text;  // of a call: its arguments
  std::string call_id, name;

  json::object told(std::string_view status) const {
    switch (kind) {
      case Kind::kReasoning: {
        json::array content;
        if (status != "in_progress") content.push_back(reasoning_part(text));
        return {{"type", "reasoning"}, {"id", id}, {"summary", json::array()}, {"content", std::move(content)}};
      }
      case Kind::kText: {
        json::array content;
        if (status != "in_progress") content.push_back(text_part(text));
        return {{"type", "message"},
                {"id", id},
                {"role", "assistant"},
                {"status", status},
                {"content", std::move(content)}};
      }
      case Kind::kCall:
        break;
    }
    return {{"type", "function_call"}, {"id", id},
            {"call_id", call_id},      {"name", name},
            {"status", status},        {"arguments", status == "in_progress" ? "" : text}};
  }
};

// What is known of the response as it comes.
class Response {
 public:
  explicit Response(json::object asked) : asked_(std::move(asked)) {}

  void take_head(const json::object& from) {
    if (id_.empty()) id_ = text_of(from, "id");
    if (model_.empty()) model_ = text_of(from, "model");
    if (created_ == 0) created_ = number_of(from, "created");
    const json::object* usage = object_of(from, "usage");
    if (usage == nullptr) return;
    usage_.take_openai(*usage);
    if (const json::object* details = object_of(*usage, "completion_tokens_details"))
      reasoning_tokens_ = number_of(*details, "reasoning_tokens");
  }
  void take_finish(std::string_view reason) {
    if (!reason.empty()) finish_ = reason;
  }
  Item& add(Item::Kind kind) {
    constexpr const char* kPrefix[] = {"rs", "msg", "fc"};
    Item item;
    item.kind = kind;
    item.id = fmt::format("{}_{}_{}", kPrefix[int(kind)], id_, items_.size());
    items_.push_back(std::move(item));
    return items_.back();
  }
  std::vector<Item>& items() { return items_; }

  bool incomplete() const { return finish_ == "length" || finish_ == "content_filter"; }

  json::object told(bool in_progress) const {
    const std::string_view status = in_progress ? "in_progress" : incomplete() ? "incomplete" : "completed";
    json::object out{{"id", "resp_" + id_}, {"object", "response"}, {"created_at", created_}, {"status", status}};
    out["model"] = model_;
    out["error"] = nullptr;
    out["incomplete_details"] = nullptr;
    if (!in_progress && incomplete())
      out["incomplete_details"] =
          json::object{{"reason", finish_ == "length" ? "max_output_tokens" : "content_filter"}};
    json::array output;
    for (size_t i = 0; !in_progress && i < items_.size(); ++i)
      output.push_back(items_[i].told(i + 1 == items_.size() ? status : "completed"));
    out["output"] = std::move(output);
    for (const char* name : {"instructions", "max_output_tokens", "temperature", "top_p", "user", "reasoning"}) {
      out[name] = nullptr;
      copy_member(asked_, name, out);
    }
    out["text"] = json::object{{"format", json::object{{"type", "text"}}}};
    out["tools"] = json::array();
    out["tool_choice"] = "auto";
    out["parallel_tool_calls"] = true;
    out["truncation"] = "disabled";
    out["metadata"] = json::object();
    for (const char* name : {"text", "tools", "tool_choice", "parallel_tool_calls", "truncation", "metadata"})
      copy_member(asked_, name, out);
    out["previous_response_id"] = nullptr;
    out["store"] = false;
    out["usage"] = nullptr;
    if (!in_progress && usage_.known) {
      out["usage"] = json::object{{"input_tokens", usage_.prompt},
                                  {"input_tokens_details", json::object{{"cached_tokens", usage_.cached}}},
                                  {"output_tokens", usage_.output},
                                  {"output_tokens_details", json::object{{"reasoning_tokens", reasoning_tokens_}}},
                                  {"total_tokens", usage_.prompt + usage_.output}};
    }
    return out;
  }

 private:
  const json::object asked_;
  std::string id_, model_, finish_;
  int64_t created_ = 0, reasoning_tokens_ = 0;
  UsageFigures usage_;
  std::vector<Item> items_;
};

class ToResponse final : public StreamTranslator {
 public:
  explicit ToResponse(json::object asked) : response_(std::move(asked)) {}

  Status event(const RawEvent& event, std::string& out) override {
    if (event.data == "[DONE]") {
      finish(out);
      return {};
    }
    SW_ASSIGN(const json::object chunk, parse_json_object(event.data));
    if (const json::object* error = object_of(chunk, "error")) {
      json::object told{{"code", text_of(*error, "code")}, {"message", text_of(*error, "message")}, {"param", nullptr}};
      tell("error", std::move(told), out);
      ended_ = true;
      return {};
    }
    response_.take_head(chunk);
    if (!std::exchange(begun_, true)) {
      tell("response.created", {{"response", response_.told(true)}}, out);
      tell("response.in_progress", {{"response", response_.told(true)}}, out);
    }
    const json::array* choices = array_of(chunk, "choices");
    if (choices == nullptr || choices->empty()) return {};
    const json::object* choice = choices->front().if_object();
    if (choice == nullptr) return invalid("choices: expected objects");
    if (const json::object* delta = object_of(*choice, "delta")) take(*delta, out);
    response_.take_finish(text_of(*choice, "finish_reason"));
    return {};
  }

  void finish(std::string& out) override {
    if (!begun_ || std::exchange(ended_, true)) return;
    close(out);
    const bool incomplete = response_.incomplete();
    for (const auto& [index, at] : calls_) done(at, out);
    for (const size_t at : replaced_) done(at, out);
    tell(incomplete ? "response.incomplete" : "response.completed", {{"response", response_.told(false)}}, out);
  }

 private:
  void tell(std::string_view type, json::object data, std::string& out) {
    data["type"] = type;
    data["sequence_number"] = sequence_++;
    net::append_sse_event(out, json::serialize(data), type);
  }
  // Of an item, or of the one part that it has.
  void tell_of(size_t at, std::string_view type, json::object data, std::string& out, bool part = false) {
    data["output_index"] = at;
    if (!data.contains("item")) data["item_id"] = response_.items()[at].id;
    if (part) data["content_index"] = 0;
    tell(type, std::move(data), out);
  }

  void take(const json::object& delta, std::string& out) {
    say(Item::Kind::kReasoning, reasoning_of(delta), out);
    const std::string_view text = text_of(delta, "content");
    say(Item::Kind::kText, text.empty() ? text_of(delta, "refusal") : text, out);
    const json::array* calls = array_of(delta, "tool_calls");
    if (calls == nullptr) return;
    for (const json::value& value : *calls) {
      if (const json::object* call = value.if_object()) take_call(*call, out);
    }
  }

  void say(Item::Kind kind, std::string_view text, std::string& out) {
    if (text.empty()) return;
    const bool reasoning = kind == Item::Kind::kReasoning;
    if (!open_ || response_.items()[*open_].kind != kind) {
      close(out);
      open_ = begin(kind, out);
      if (!reasoning) tell_of(*open_, "response.content_part.added", {{"part", text_part("")}}, out, true);
    }
    response_.items()[*open_].text += text;
    json::object data{{"delta", text}};
    if (!reasoning) data["logprobs"] = json::array();
    tell_of(*open_, reasoning ? "response.reasoning_text.delta" : "response.output_text.delta", std::move(data), out,
            true);
  }

  size_t begin(Item::Kind kind, std::string& out, std::string_view call_id = {}, std::string_view name = {}) {
    Item& item = response_.add(kind);
    item.call_id = call_id;
    item.name = name;
    const size_t at = response_.items().size() - 1;
    tell_of(at, "response.output_item.added", {{"item", item.told("in_progress")}}, out);
    return at;
  }

  void take_call(const json::object& call, std::string& out) {
    const json::object* function = object_of(call, "function");
    const int64_t index = number_of(call, "index");
    const std::string_view id = text_of(call, "id");
    auto found = calls_.find(index);
    if (found != calls_.end() && !id.empty() && response_.items()[found->second].call_id != id) {
      replaced_.push_back(found->second);  // some give every call the index 0
      calls_.erase(found);
      found = calls_.end();
    }
    if (found == calls_.end()) {
      close(out);
      const std::string_view name = function == nullptr ? std::string_view() : text_of(*function, "name");
      found = calls_.emplace(index, begin(Item::Kind::kCall, out, id, name)).first;
    }
    const std::string_view arguments = function == nullptr ? std::string_view() : text_of(*function, "arguments");
    if (arguments.empty()) return;
    response_.items()[found->second].text += arguments;
    tell_of(found->second, "response.function_call_arguments.delta", {{"delta", arguments}}, out);
  }

  // The reasoning or the text that is being told.
  void close(std::string& out) {
    if (!open_) return;
    done(*open_, out);
    open_.reset();
  }

  void done(size_t at, std::string& out) {
    const Item& item = response_.items()[at];
    if (item.kind == Item::Kind::kCall) {
      tell_of(at, "response.function_call_arguments.done", {{"name", item.name}, {"arguments", item.text}}, out);
    } else if (item.kind == Item::Kind::kReasoning) {
      tell_of(at, "response.reasoning_text.done", {{"text", item.text}}, out, true);
    } else {
      tell_of(at, "response.output_text.done", {{"text", item.text}, {"logprobs", json::array()}}, out, true);
      tell_of(at, "response.content_part.done", {{"part", text_part(item.text)}}, out, true);
    }
    tell_of(at, "response.output_item.done", {{"item", item.told("completed")}}, out);
  }

  Response response_;
  bool begun_ = false;
  bool ended_ = false;
  int64_t sequence_ = 0;
  std::optional<size_t> open_;       // the reasoning or text that goes on
  std::map<int64_t, size_t> calls_;  // by the call's index there; open until the end
  std::vector<size_t> replaced_;     // calls whose index was given to another
};

}  // namespace

Result<std::string> chat_answer_to_response(const json::object& asked, std::string_view body) {
  SW_ASSIGN(const json::object from, parse_json_object(body));
  Response response(asked);
  response.take_head(from);
  const json::array* choices = array_of(from, "choices");
  const json::object* choice = choices == nullptr || choices->empty() ? nullptr : choices->front().if_object();
  const json::object* message = choice == nullptr ? nullptr : object_of(*choice, "message");
  if (message == nullptr) return invalid("choices: expected a message, found none");
  response.take_finish(text_of(*choice, "finish_reason"));
  if (const std::string_view text = reasoning_of(*message); !text.empty())
    response.add(Item::Kind::kReasoning).text = text;
  std::string_view text = text_of(*message, "content");
  if (text.empty()) text = text_of(*message, "refusal");
  if (!text.empty()) response.add(Item::Kind::kText).text = text;
  if (const json::array* calls = array_of(*message, "tool_calls")) {
    for (const json::value& value : *calls) {
      SW_ASSIGN(const json::object* function, function_of(value));
      const json::object& call = value.get_object();
      Item& item = response.add(Item::Kind::kCall);
      item.call_id = text_of(call, "id");
      item.name = text_of(*function, "name");
      item.text = text_of(*function, "arguments");
    }
  }
  return json::serialize(response.told(false));
}

std::unique_ptr<StreamTranslator> chat_stream_to_response(const json::object& asked) {
  return std::make_unique<ToResponse>(asked);
}

}  // namespace spillway::gateway
