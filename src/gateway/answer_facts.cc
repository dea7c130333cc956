#include "gateway/answer_facts.h"

#include "gateway/json_cursor.h"

namespace spillway::gateway {
namespace {

using Kind = JsonCursor::Kind;

class Reader {
 public:
  explicit Reader(std::string_view text) : cursor_(text) {}

  AnswerFacts openai() {
    if (!cursor_.enter_object()) return {};
    bool choices = false, many = false;
    std::string_view key;
    while (cursor_.next_member(key)) {
      if (key == "choices") {
        choices = true;
        many = choice_list();
      } else if (key == "data" || key == "results") {
        const bool list = cursor_.peek() == Kind::kArray;
        facts_.progress |= list;
        choices |= list;
        cursor_.skip();
      } else if (!common(key)) {
        cursor_.skip();
      }
    }
    facts_.sound = cursor_.finished() && (choices || facts_.error || facts_.has_usage);
    facts_.usage_only = facts_.has_usage && !many && !facts_.progress && !facts_.error;
    return facts_;
  }

  AnswerFacts anthropic(std::string_view name) {
    if (!cursor_.enter_object()) return {};
    bool known = false;
    std::string_view key, type = name;
    while (cursor_.next_member(key)) {
      if (key == "type") {
        type = text();
        known = true;
      } else if (key == "index") {
        facts_.index_text = cursor_.value();
        facts_.index = JsonCursor(facts_.index_text).integer().value_or(0);
      } else if (key == "delta") {
        delta();
      } else if (key == "content") {
        content_blocks();
      } else if (key == "content_block") {
        content_block();
      } else if (key == "message") {
        message();
      } else if (key == "stop_reason") {
        facts_.finish_reason = text();
      } else if (key == "input_tokens") {  // a count of tokens is this alone
        known = facts_.progress = number() > 0;
      } else if (!common(key)) {
        cursor_.skip();
      }
    }
    facts_.type = type;
    facts_.done = type == "message_stop";
    facts_.sound = cursor_.finished() && known;
    return facts_;
  }

 private:
  // A string, or nothing of any other value.
  std::string_view text() {
    if (const auto found = cursor_.string()) return *found;
    cursor_.skip();
    return {};
  }

  int64_t number() {
    if (cursor_.peek() == Kind::kNumber) return cursor_.integer().value_or(0);
    cursor_.skip();
    return 0;
  }

  bool common(std::string_view key) {
    if (key == "usage") {
      usage();
    } else if (key == "error") {
      error();
    } else if (key == "id") {
      facts_.id = text();
    } else if (key == "model") {
      facts_.model = text();
    } else {
      return false;
    }
    return true;
  }

  // Whether there was a choice.
  bool choice_list() {
    bool any = false;
    if (!cursor_.enter_array()) {
      cursor_.skip();
      return false;
    }
    while (cursor_.next_element()) {
      any = true;
      std::string_view key;
      if (!cursor_.enter_object()) {
        cursor_.skip();
        continue;
      }
      while (cursor_.next_member(key)) {
        if (key == "delta" || key == "message") {
          delta();
        } else if (key == "text") {
          said(text(), facts_.content);
        } else if (key == "finish_reason") {
          const std::string_view reason = text();
          if (!reason.empty()) facts_.finish_reason = reason;
        } else if (key == "index") {
          facts_.index = std::max(facts_.index, number());
        } else {
          cursor_.skip();
        }
      }
    }
    return any;
  }

  // OpenAI's delta and message, Anthropic's delta: their members do not collide.
  void delta() {
    std::string_view key;
    if (!cursor_.enter_object()) {
      cursor_.skip();
      return;
    }
    while (cursor_.next_member(key)) {
      if (key == "content" || key == "text" || key == "refusal") {
        said(text(), facts_.content);
      } else if (key == "reasoning_content" || key == "thinking" || key == "reasoning") {
        said(text(), facts_.reasoning);
      } else if (key == "partial_json") {
        said(text(), unused_);
        facts_.tool_call = true;
      } else if (key == "tool_calls" || key == "function_call") {
        const std::string_view value = cursor_.value();
        if (value.size() <= 2 || value == "null") continue;
        facts_.progress = facts_.tool_call = true;
        facts_.text_bytes += int64_t(value.size());
      } else if (key == "stop_reason") {
        facts_.finish_reason = text();
      } else {
        cursor_.skip();
      }
    }
  }

  void said(std::string_view raw, std::string_view& where) {
    if (raw.empty()) return;
    where = raw;
    facts_.progress = true;
    facts_.text_bytes += int64_t(raw.size());
  }

  void content_blocks() {
    if (!cursor_.enter_array()) {
      cursor_.skip();
      return;
    }
    while (cursor_.next_element()) content_block();
  }

  void content_block() {
    std::string_view key;
    if (!cursor_.enter_object()) {
      cursor_.skip();
      return;
    }
    while (cursor_.next_member(key)) {
      if (key == "text") {
        said(text(), facts_.content);
      } else if (key == "thinking") {
        said(text(), facts_.reasoning);
      } else if (key == "name") {  // of a tool that is called
        facts_.tool_call = facts_.progress = true;
        cursor_.skip();
      } else {
        cursor_.skip();
      }
    }
  }

  // message_start holds the message, with its usage.
  void message() {
    std::string_view key;
    if (!cursor_.enter_object()) {
      cursor_.skip();
      return;
    }
    while (cursor_.next_member(key)) {
      if (!common(key)) cursor_.skip();
    }
  }

  void usage() {
    std::string_view key;
    if (!cursor_.enter_object()) {
      cursor_.skip();
      return;
    }
    TokenUsage& usage = facts_.usage;
    int64_t cache_read = 0, cache_written = 0;
    while (cursor_.next_member(key)) {
      if (key == "prompt_tokens" || key == "input_tokens") {
        usage.prompt_tokens = number();
      } else if (key == "completion_tokens" || key == "output_tokens") {
        usage.output_tokens = number();
      } else if (key == "prompt_cache_hit_tokens") {
        usage.cached_tokens = number();
      } else if (key == "cache_read_input_tokens") {
        cache_read = number();
      } else if (key == "cache_creation_input_tokens") {
        cache_written = number();
      } else if (key == "prompt_tokens_details") {
        prompt_details();
      } else {
        cursor_.skip();
      }
    }
    usage.cached_tokens += cache_read;
    usage.prompt_tokens += cache_read + cache_written;
    facts_.has_usage = true;
  }

  void prompt_details() {
    std::string_view key;
    if (!cursor_.enter_object()) {
      cursor_.skip();
      return;
    }
    while (cursor_.next_member(key)) {
      if (key == "cached_tokens") {
        facts_.usage.cached_tokens = number();
      } else {
        cursor_.skip();
      }
    }
  }

  void error() {
    if (cursor_.peek() == Kind::kNull) {
      cursor_.skip();
      return;
    }
    facts_.error = true;
    std::string_view key;
    if (!cursor_.enter_object()) {
      facts_.error_message = text();
      return;
    }
    while (cursor_.next_member(key)) {
      if (key == "message") {
        facts_.error_message = text();
      } else if (key == "code") {
        const std::string_view code = text();
        if (!code.empty()) facts_.error_code = code;
      } else if (key == "type") {
        const std::string_view type = text();
        if (facts_.error_code.empty()) facts_.error_code = type;
      } else {
        cursor_.skip();
      }
    }
  }

  JsonCursor cursor_;
  AnswerFacts facts_;
  std::string_view unused_;
};

}  // namespace

AnswerFacts facts_of_event(Protocol protocol, const RawEvent& event) {
  if (event.data == "[DONE]") {
    AnswerFacts facts;
    facts.sound = facts.done = true;
    return facts;
  }
  Reader reader(event.data);
  AnswerFacts facts = protocol == Protocol::kOpenAi ? reader.openai() : reader.anthropic(event.name);
  facts.error |= event.name == "error";
  return facts;
}

AnswerFacts facts_of_body(Protocol protocol, std::string_view body) {
  Reader reader(body);
  return protocol == Protocol::kOpenAi ? reader.openai() : reader.anthropic("message");
}

}  // namespace spillway::gateway
