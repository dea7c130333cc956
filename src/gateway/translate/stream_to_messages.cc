// A stream of chat completion chunks told as Anthropic's events.
#include <map>
#include <vector>

#include "gateway/translate/answers.h"
#include "gateway/translate/translate.h"
#include "net/sse.h"

namespace spillway::gateway {
namespace {

class ToMessages final : public StreamTranslator {
 public:
  Status event(const RawEvent& event, std::string& out) override {
    if (event.data == "[DONE]") {
      finish(out);
      return {};
    }
    SW_ASSIGN(const json::object chunk, parse_json_object(event.data));
    if (const json::object* usage = object_of(chunk, "usage")) usage_.take_openai(*usage);
    const json::array* choices = array_of(chunk, "choices");
    if (choices == nullptr || choices->empty()) return {};
    if (!std::exchange(begun_, true)) begin(chunk, out);
    const json::object* choice = choices->front().if_object();
    if (choice == nullptr) return invalid("choices: expected objects");
    if (const json::object* delta = object_of(*choice, "delta")) take(*delta, out);
    if (const std::string_view reason = text_of(*choice, "finish_reason"); !reason.empty()) finish_reason_ = reason;
    return {};
  }

  void finish(std::string& out) override {
    if (!begun_ || std::exchange(ended_, true)) return;
    close(out);
    for (const auto& [index, tool] : tools_) stop(tool.block, out);
    for (const int block : replaced_) stop(block, out);
    json::object delta{{"stop_reason", stop_reason_of(finish_reason_, !tools_.empty())}, {"stop_sequence", nullptr}};
    tell("message_delta", {{"type", "message_delta"}, {"delta", std::move(delta)}, {"usage", usage_.anthropic()}}, out);
    tell("message_stop", {{"type", "message_stop"}}, out);
  }

 private:
  static void tell(std::string_view name, const json::object& data, std::string& out) {
    net::append_sse_event(out, json::serialize(data), name);
  }

  void begin(const json::object& chunk, std::string& out) {
    json::object message{
        {"id", text_of(chunk, "id")}, {"type", "message"}, {"role", "assistant"}, {"content", json::array()}};
    message["model"] = text_of(chunk, "model");
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    message["usage"] = usage_.anthropic();
    tell("message_start", {{"type", "message_start"}, {"message", std::move(message)}}, out);
  }

  void take(const json::object& delta, std::string& out) {
    std::string_view reasoning = text_of(delta, "reasoning_content");
    if (reasoning.empty()) reasoning = text_of(delta, "reasoning");
    if (!reasoning.empty()) say("thinking", "thinking_delta", "thinking", reasoning, out);
    std::string_view text = text_of(delta, "content");
    if (text.empty()) text = text_of(delta, "refusal");
    if (!text.empty()) say("text", "text_delta", "text", text, out);
    const json::array* calls = array_of(delta, "tool_calls");
    if (calls == nullptr) return;
    for (const json::value& value : *calls) {
      if (const json::object* call = value.if_object()) take_call(*call, out);
    }
  }

  // Text or thinking: one block as long as its kind goes on.
  void say(std::string_view kind, std::string_view delta_type, std::string_view member, std::string_view text,
           std::string& out) {
    if (open_kind_ != kind) {
      close(out);
      open_kind_ = kind;
      open_ = blocks_++;
      json::object block{{"type", kind}, {member, ""}};
      if (kind == "thinking") block["signature"] = "";
      tell("content_block_start",
           {{"type", "content_block_start"}, {"index", open_}, {"content_block", std::move(block)}}, out);
    }
    tell("content_block_delta",
         {{"type", "content_block_delta"},
          {"index", open_},
          {"delta", json::object{{"type", delta_type}, {member, text}}}},
         out);
  }

  void take_call(const json::object& call, std::string& out) {
    const json::object* function = object_of(call, "function");
    const int64_t index = number_of(call, "index");
    const std::string_view id = text_of(call, "id");
    auto found = tools_.find(index);
    if (found != tools_.end() && !id.empty() && found->second.id != id) {  // some give every call the index 0
      replaced_.push_back(found->second.block);
      tools_.erase(found);
      found = tools_.end();
    }
    if (found == tools_.end()) {
      close(out);
      found = tools_.emplace(index, Tool{blocks_++, std::string(id)}).first;
      json::object block{{"type", "tool_use"}, {"id", id}, {"input", json::object()}};
      block["name"] = function == nullptr ? std::string_view() : text_of(*function, "name");
      tell("content_block_start",
           {{"type", "content_block_start"}, {"index", found->second.block}, {"content_block", std::move(block)}}, out);
    }
    const std::string_view arguments = function == nullptr ? std::string_view() : text_of(*function, "arguments");
    if (arguments.empty()) return;
    tell("content_block_delta",
         {{"type", "content_block_delta"},
          {"index", found->second.block},
          {"delta", json::object{{"type", "input_json_delta"}, {"partial_json", arguments}}}},
         out);
  }

  void close(std::string& out) {
    if (open_kind_.empty()) return;
    stop(open_, out);
    open_kind_ = {};
  }
  static void stop(int block, std::string& out) {
    tell("content_block_stop", {{"type", "content_block_stop"}, {"index", block}}, out);
  }

  struct Tool {
    int block = 0;
    std::string id;
  };

  bool begun_ = false;
  bool ended_ = false;
  int blocks_ = 0;                 // begun so far
  int open_ = 0;                   // the block of open_kind_
  std::string_view open_kind_;     // "text", "thinking" or none
  std::map<int64_t, Tool> tools_;  // by the call's index there; their blocks are open until the end
  std::vector<int> replaced_;      // blocks of calls whose index was given to another
  std::string finish_reason_;
  UsageFigures usage_;
};

}  // namespace

std::unique_ptr<StreamTranslator> chat_stream_to_messages() { return std::make_unique<ToMessages>(); }

}  // namespace spillway::gateway
