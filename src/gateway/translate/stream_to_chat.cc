// A stream of Anthropic's events told as chat completion chunks.
#include <map>

#include "gateway/translate/answers.h"
#include "gateway/translate/translate.h"
#include "net/sse.h"

namespace spillway::gateway {
namespace {

class ToChat final : public StreamTranslator {
 public:
  ToChat(bool include_usage, std::string id) : include_usage_(include_usage), id_(std::move(id)) {}

  Status event(const RawEvent& event, std::string& out) override {
    SW_ASSIGN(const json::object data, parse_json_object(event.data));
    const std::string_view type = text_of(data, "type");
    if (type == "message_start") {
      begin(data, out);
    } else if (type == "content_block_start") {
      start_block(data, out);
    } else if (type == "content_block_delta") {
      if (const json::object* delta = object_of(data, "delta")) take(*delta, number_of(data, "index"), out);
    } else if (type == "content_block_stop") {
      stop_block(number_of(data, "index"), out);
    } else if (type == "message_delta") {
      if (const json::object* usage = object_of(data, "usage")) usage_.take_anthropic(*usage);
      if (const json::object* delta = object_of(data, "delta")) {
        if (const std::string_view reason = text_of(*delta, "stop_reason"); !reason.empty()) stop_reason_ = reason;
      }
    } else if (type == "message_stop") {
      finish(out);
    }
    return {};
  }

  void finish(std::string& out) override {
    if (std::exchange(ended_, true)) return;
    json::object last = chunk(json::object(), finish_reason_of(stop_reason_));
    if (!include_usage_) last["usage"] = usage_.openai();
    tell(last, out);
    if (include_usage_) {
      json::object figures = head();
      figures["choices"] = json::array();
      figures["usage"] = usage_.openai();
      tell(figures, out);
    }
    net::append_sse_event(out, "[DONE]");
  }

 private:
  static void tell(const json::object& data, std::string& out) { net::append_sse_event(out, json::serialize(data)); }

  json::object head() const {
    return {{"id", id_}, {"object", "chat.completion.chunk"}, {"created", created_}, {"model", model_}};
  }

  json::object chunk(json::object delta, std::string_view finish_reason = {}) const {
    json::object choice{{"index", 0}, {"delta", std::move(delta)}, {"logprobs", nullptr}};
    if (finish_reason.empty())
      choice["finish_reason"] = nullptr;
    else
      choice["finish_reason"] = finish_reason;
    json::object out = head();
    out["choices"] = json::array{std::move(choice)};
    return out;
  }

  void begin(const json::object& data, std::string& out) {
    created_ = unix_now();
    if (const json::object* message = object_of(data, "message")) {
      if (id_.empty()) id_ = text_of(*message, "id");
      model_ = text_of(*message, "model");
      if (const json::object* usage = object_of(*message, "usage")) usage_.take_anthropic(*usage);
    }
    tell(chunk({{"role", "assistant"}, {"content", ""}}), out);
  }

  void start_block(const json::object& data, std::string& out) {
    const json::object* block = object_of(data, "content_block");
    if (block == nullptr) return;
    const std::string_view type = text_of(*block, "type");
    if (type == "text" && !text_of(*block, "text").empty()) tell(chunk({{"content", text_of(*block, "text")}}), out);
    if (type != "tool_use") return;
    const int call = int(calls_.size());
    const json::object* input = object_of(*block, "input");
    calls_[number_of(data, "index")] = {call, input == nullptr ? "{}" : json::serialize(*input)};
    json::object function{{"name", text_of(*block, "name")}, {"arguments", ""}};
    json::object told{
        {"index", call}, {"id", text_of(*block, "id")}, {"type", "function"}, {"function", std::move(function)}};
    tell(chunk({{"tool_calls", json::array{std::move(told)}}}), out);
  }

  void take(const json::object& delta, int64_t block, std::string& out) {
    const std::string_view type = text_of(delta, "type");
    if (type == "text_delta") {
      tell(chunk({{"content", text_of(delta, "text")}}), out);
    } else if (type == "thinking_delta") {
      tell(chunk({{"reasoning_content", text_of(delta, "thinking")}}), out);
    } else if (type == "input_json_delta") {
      const auto found = calls_.find(block);
      const std::string_view piece = text_of(delta, "partial_json");
      if (found == calls_.end() || piece.empty()) return;
      found->second.untold.clear();
      tell_arguments(found->second.index, piece, out);
    }
  }

  // A call of which no arguments were told: those of the block's begin, "{}" for none.
  void stop_block(int64_t block, std::string& out) {
    const auto found = calls_.find(block);
    if (found == calls_.end() || found->second.untold.empty()) return;
    tell_arguments(found->second.index, std::exchange(found->second.untold, {}), out);
  }

  void tell_arguments(int call, std::string_view piece, std::string& out) const {
    json::object told{{"index", call}, {"function", json::object{{"arguments", piece}}}};
    tell(chunk({{"tool_calls", json::array{std::move(told)}}}), out);
  }

  struct Call {
    int index = 0;
    std::string untold;  // arguments, until some come
  };

  const bool include_usage_;
  bool ended_ = false;
  std::string id_, model_;
  int64_t created_ = 0;
  std::map<int64_t, Call> calls_;  // by their block
  std::string stop_reason_;
  UsageFigures usage_;
};

}  // namespace

std::unique_ptr<StreamTranslator> messages_stream_to_chat(bool include_usage, std::string id) {
  return std::make_unique<ToChat>(include_usage, std::move(id));
}

}  // namespace spillway::gateway
