#include "server/served_model.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace spillway::server {
namespace {

namespace json = boost::json;

Result<std::string> read_optional(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::string();
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path.string() + ": expected a readable file");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The object in a file's bytes; empty bytes are an empty object.
Result<json::object> parse_object(const std::string& bytes, const char* file) {
  if (bytes.empty()) return json::object();
  json::error_code error;
  json::value value = json::parse(bytes, error);
  if (error) return corrupt(std::string(file) + ": expected JSON, found " + error.message());
  if (!value.is_object()) return corrupt(std::string(file) + ": expected a JSON object");
  return std::move(value.get_object());
}

// bos_token and eos_token are a string, or an added token with "content".
std::string token_text(const json::object& config, std::string_view key) {
  const json::value* value = config.if_contains(key);
  if (value != nullptr && value->is_object()) value = value->get_object().if_contains("content");
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::optional<double> number(const json::object& config, std::string_view key) {
  const json::value* value = config.if_contains(key);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}

// chat_template is one template, or a list of {"name", "template"} of which "default" counts.
std::string template_source(const json::object& config) {
  const json::value* value = config.if_contains("chat_template");
  if (value == nullptr) return {};
  if (value->is_string()) return std::string(value->get_string());
  if (!value->is_array()) return {};
  for (const json::value& entry : value->get_array()) {
    if (entry.is_object() && token_text(entry.get_object(), "name") == "default") {
      return token_text(entry.get_object(), "template");
    }
  }
  return {};
}

void add_ids(const json::object& config, std::vector<int32_t>& ids) {
  const json::value* value = config.if_contains("eos_token_id");
  if (value == nullptr) return;
  const auto add = [&](const json::value& id) {
    if (id.is_int64()) ids.push_back(static_cast<int32_t>(id.get_int64()));
  };
  if (value->is_array()) {
    for (const json::value& id : value->get_array()) add(id);
  } else {
    add(*value);
  }
}

}  // namespace

Result<CheckpointText> CheckpointText::read(const std::string& folder) {
  const std::filesystem::path root(folder);
  CheckpointText text;
  SW_ASSIGN(text.config, read_optional(root / "config.json"));
  SW_ASSIGN(text.tokenizer, read_optional(root / "tokenizer.json"));
  SW_ASSIGN(text.tokenizer_config, read_optional(root / "tokenizer_config.json"));
  SW_ASSIGN(text.generation_config, read_optional(root / "generation_config.json"));
  SW_ASSIGN(text.chat_template, read_optional(root / "chat_template.jinja"));
  if (text.tokenizer.empty()) return not_found(folder + ": expected tokenizer.json, found none");
  return text;
}

Result<std::shared_ptr<ServedModel>> ServedModel::make(ServedModelOptions options, const CheckpointText& text,
                                                       std::unique_ptr<engine::Engine> engine) {
  std::shared_ptr<ServedModel> model(new ServedModel());
  model->options_ = std::move(options);
  model->created_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  SW_ASSIGN(model->tokenizer_, text::Tokenizer::parse(text.tokenizer));
  model->guard_ = std::make_unique<PromptGuard>(*model->tokenizer_);
  model->think_end_ = model->tokenizer_->id_of("</think>");
  SW_TRY(model->read_tokenizer_config(text));
  SW_TRY(model->read_generation_config(text));
  model->find_fim_tokens();
  model->engine_ = std::move(engine);
  return model;
}

Status ServedModel::read_tokenizer_config(const CheckpointText& text) {
  SW_ASSIGN(const json::object config, parse_object(text.tokenizer_config, "tokenizer_config.json"));
  bos_ = token_text(config, "bos_token");
  eos_ = token_text(config, "eos_token");
  const std::string source = text.chat_template.empty() ? template_source(config) : text.chat_template;
  reasons_ = think_end_.has_value() || source.find("<think>") != std::string::npos;
  if (source.empty()) return {};
  auto parsed = text::ChatTemplate::parse(source);
  if (!parsed.ok()) return std::move(parsed).error().in("chat_template");
  chat_template_ = std::move(parsed).value();
  tool_style_ = text::detect_tool_style(source);
  tool_support_ = probe_tools(*chat_template_, tool_style_, {{"bos_token", bos_}, {"eos_token", eos_}});
  return {};
}

Status ServedModel::read_generation_config(const CheckpointText& text) {
  SW_ASSIGN(const json::object generation, parse_object(text.generation_config, "generation_config.json"));
  SW_ASSIGN(const json::object config, parse_object(text.config, "config.json"));
  defaults_.temperature = static_cast<float>(number(generation, "temperature").value_or(1));
  defaults_.top_p = static_cast<float>(number(generation, "top_p").value_or(1));
  defaults_.top_k = static_cast<int>(number(generation, "top_k").value_or(0));
  defaults_.repetition_penalty = static_cast<float>(number(generation, "repetition_penalty").value_or(1));
  defaults_.max_tokens = static_cast<int>(number(generation, "max_new_tokens").value_or(0));
  const json::value* sample = generation.if_contains("do_sample");
  if (sample != nullptr && sample->is_bool() && !sample->get_bool()) defaults_.temperature = 0;
  if (options_.default_max_tokens > 0) defaults_.max_tokens = options_.default_max_tokens;

  add_ids(generation, end_tokens_);
  if (end_tokens_.empty()) add_ids(config, end_tokens_);
  add_end_token(eos_);
  std::ranges::sort(end_tokens_);
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
  return {};
}

void ServedModel::add_end_token(std::string_view token) {
  if (token.empty()) return;
  if (const auto id = tokenizer_->id_of(token)) end_tokens_.push_back(*id);
}

void ServedModel::find_fim_tokens() {
  static const FimTokens kKnown[] = {
      {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
      {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
  };
  for (const FimTokens& tokens : kKnown) {
    if (tokenizer_->id_of(tokens.prefix) && tokenizer_->id_of(tokens.suffix) && tokenizer_->id_of(tokens.middle)) {
      fim_ = tokens;
    }
  }
}

bool ServedModel::answers_to(std::string_view name) const {
  return name == options_.name || std::ranges::find(options_.aliases, name) != options_.aliases.end();
}

std::shared_ptr<const text::TokenTrie> ServedModel::trie() const {
  std::call_once(trie_once_, [&] { trie_ = text::TokenTrie::build(*tokenizer_, options_.vocab_size, end_tokens_); });
  return trie_;
}

}  // namespace spillway::server
