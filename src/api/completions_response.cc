#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <chrono>

#include "api/completions.h"
#include "api/response_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

// A token that is no text by itself is named by its bytes, as OpenAI does it: many such tokens would share U+FFFD, and
// top_logprobs has them as keys.
std::string token_name(std::string_view bytes) {
  std::string text = utf8_lossy(bytes);
  if (text == bytes) return text;
  std::string name = "bytes:";
  for (const char byte : bytes) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

json::value logprobs_field(const std::vector<CompletionLogprob>* tokens) {
  if (!tokens) return nullptr;
  json::array texts, logprobs, tops, offsets;
  for (const CompletionLogprob& entry : *tokens) {
    const std::string name = token_name(entry.token.bytes);
    texts.push_back(json::value(name));
    offsets.push_back(entry.text_offset);
    if (!entry.known) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(finite_logprob(entry.token.logprob));
    json::object top;
    for (const TopLogprob& other : entry.token.top) top.emplace(token_name(other.bytes), finite_logprob(other.logprob));
    top.emplace(name, finite_logprob(entry.token.logprob));  // the token itself, however unlikely
    tops.push_back(std::move(top));
  }
  return json::object{{"tokens", std::move(texts)},
                      {"token_logprobs", std::move(logprobs)},
                      {"top_logprobs", std::move(tops)},
                      {"text_offset", std::move(offsets)}};
}

json::object choice_json(int index, std::string_view text, const std::vector<CompletionLogprob>* logprobs,
                         json::value finish) {
  json::object out{{"index", index}, {"text", text}};
  out["logprobs"] = logprobs_field(logprobs);
  out["finish_reason"] = std::move(finish);
  return out;
}

std::string chunk(const ResponseHead& head, json::object choice, const Usage* usage, bool include_usage) {
  json::object out = head_json(head, "text_completion");
  json::array choices;
  choices.push_back(std::move(choice));
  out["choices"] = std::move(choices);
  set_chunk_usage(out, usage, include_usage);
  return json::serialize(out);
}

json::object model_json(const ModelEntry& model) {
  json::object out{{"id", model.id}, {"object", "model"}, {"created", model.created}, {"owned_by", model.owned_by}};
  if (!model.root.empty()) out["root"] = model.root;
  if (model.max_model_len > 0) out["max_model_len"] = model.max_model_len;
  return out;
}

json::object anthropic_model_json(const ModelEntry& model) {
  json::object out{{"type", "model"}, {"id", model.id}, {"display_name", model.id}, {"lifecycle", "active"}};
  const auto created = std::chrono::sys_seconds(std::chrono::seconds(model.created));
  out["created_at"] = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(created)));
  if (model.max_model_len > 0) out["max_input_tokens"] = model.max_model_len;
  return out;
}

}  // namespace

std::string completion_response(const ResponseHead& head, const std::vector<CompletionChoice>& choices,
                                const Usage& usage) {
  json::object out = head_json(head, "text_completion");
  json::array list;
  for (const CompletionChoice& choice : choices) {
    list.push_back(choice_json(choice.index, choice.text, choice.logprobs ? &*choice.logprobs : nullptr,
                               json::string(finish_reason_name(choice.finish_reason))));
  }
  out["choices"] = std::move(list);
  out["usage"] = usage_json(usage);
  return json::serialize(out);
}

std::string completion_chunk(const ResponseHead& head, int index, std::string_view text,
                             const std::vector<CompletionLogprob>* logprobs, bool include_usage) {
  return chunk(head, choice_json(index, text, logprobs, nullptr), nullptr, include_usage);
}

std::string completion_finish_chunk(const ResponseHead& head, int index, FinishReason reason, const Usage* usage,
                                    bool include_usage) {
  return chunk(head, choice_json(index, "", nullptr, json::string(finish_reason_name(reason))), usage, include_usage);
}

std::string completion_usage_chunk(const ResponseHead& head, const Usage& usage) {
  json::object out = head_json(head, "text_completion");
  out["choices"] = json::array();
  out["usage"] = usage_json(usage);
  return json::serialize(out);
}

std::string models_response(const std::vector<ModelEntry>& models, ModelsDialect dialect) {
  json::array list;
  if (dialect == ModelsDialect::kAnthropic) {
    for (const ModelEntry& model : models) list.push_back(anthropic_model_json(model));
    json::object out{{"has_more", false}};
    out["first_id"] = models.empty() ? json::value(nullptr) : json::value(models.front().id);
    out["last_id"] = models.empty() ? json::value(nullptr) : json::value(models.back().id);
    out["data"] = std::move(list);
    return json::serialize(out);
  }
  for (const ModelEntry& model : models) list.push_back(model_json(model));
  return json::serialize(json::object{{"object", "list"}, {"data", std::move(list)}});
}

std::string model_response(const ModelEntry& model, ModelsDialect dialect) {
  if (dialect == ModelsDialect::kAnthropic) return json::serialize(anthropic_model_json(model));
  json::object out = model_json(model);
  if (!model.version.empty()) {
    const json::object ok{{"error_code", "OK"}, {"error_message", ""}};
    const json::object entry{{"version", model.version}, {"state", "AVAILABLE"}, {"status", ok}};
    json::array list;
    list.push_back(entry);
    out["model_version_status"] = std::move(list);
  }
  return json::serialize(out);
}

std::string tokenize_response(const std::vector<int32_t>& tokens, int max_model_len,
                              const std::vector<std::string>* token_strs) {
  json::object out{{"count", tokens.size()}, {"max_model_len", max_model_len}};
  out["tokens"] = json::array(tokens.begin(), tokens.end());
  if (token_strs) {
    json::array texts;
    for (const std::string& text : *token_strs) texts.push_back(json::value(utf8_lossy(text)));
    out["token_strs"] = std::move(texts);
  }
  return json::serialize(out);
}

std::string detokenize_response(std::string_view prompt) {
  return json::serialize(json::object{{"prompt", utf8_lossy(prompt)}});
}

}  // namespace spillway::api
