// ServedModel: everything that answering text requests with one model needs: its engine, tokenizer, chat template,
// generation defaults, control tokens and names. Owned by the program, shared by the connections; immutable after
// make() apart from the vocabulary trie and the grammars, which constrained requests have built. Any thread.
// Not its job: loading weights.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "server/grammar_cache.h"
#include "server/prompt_guard.h"
#include "server/tool_prompt.h"
#include "text/chat_template.h"
#include "text/grammar.h"
#include "text/output_parser.h"
#include "text/tokenizer.h"

namespace spillway::server {

// The text files of a checkpoint folder, as bytes; empty where the folder has none.
struct CheckpointText {
  std::string config;             // config.json
  std::string tokenizer;          // tokenizer.json; required
  std::string tokenizer_config;   // tokenizer_config.json
  std::string generation_config;  // generation_config.json
  std::string chat_template;      // chat_template.jinja; goes before tokenizer_config's

  static Result<CheckpointText> read(const std::string& folder);
};

// What generation_config.json says where the request says nothing.
struct GenerationDefaults {
  float temperature = 1.0f;
  float top_p = 1.0f;
  int top_k = 0;
  float repetition_penalty = 1.0f;
  int max_tokens = 0;  // 0: to the end of the context
};

// Control tokens of fill-in-the-middle, as text.
struct FimTokens {
  std::string prefix, suffix, middle;
};

struct ServedModelOptions {
  std::string name;                  // shown in /v1/models
  std::vector<std::string> aliases;  // other names that reach it
  int context_tokens_max = 0;        // prompt and output
  int vocab_size = 0;                // columns of the model's logits
  std::string fingerprint;           // system_fingerprint
  int default_max_tokens = 0;        // when a request gives none; 0: generation_config, then the context
};

class ServedModel {
 public:
  static Result<std::shared_ptr<ServedModel>> make(ServedModelOptions options, const CheckpointText& text,
                                                   std::unique_ptr<engine::Engine> engine);

  // For programs that read the text while the weights load: after make() without an engine, and before any other use.
  // What only the loaded weights tell comes with it.
  void attach(std::unique_ptr<engine::Engine> engine, int context_tokens_max, int vocab_size, std::string fingerprint) {
    options_.context_tokens_max = context_tokens_max;
    options_.vocab_size = vocab_size;
    options_.fingerprint = std::move(fingerprint);
    engine_ = std::move(engine);
  }

  const std::string& name() const { return options_.name; }
  const std::vector<std::string>& aliases() const { return options_.aliases; }
  bool answers_to(std::string_view name) const;
  const std::string& fingerprint() const { return options_.fingerprint; }
  int context_tokens_max() const { return options_.context_tokens_max; }
  int vocab_size() const { return options_.vocab_size; }
  int64_t created() const { return created_; }

  engine::Engine& engine() const { return *engine_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  const text::ChatTemplate* chat_template() const { return chat_template_.get(); }  // null: it has none
  const PromptGuard& guard() const { return *guard_; }
  text::ToolStyle tool_style() const { return tool_style_; }  // kNone: its template knows no tools
  const ToolSupport& tool_support() const { return tool_support_; }
  bool reasons() const { return reasons_; }  // its template or vocabulary knows <think>
  std::optional<int32_t> think_end() const { return think_end_; }
  const GenerationDefaults& defaults() const { return defaults_; }
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
  const std::string& bos() const { return bos_; }
  const std::string& eos() const { return eos_; }
  const std::optional<FimTokens>& fim() const { return fim_; }

  std::shared_ptr<const text::TokenTrie> trie() const;
  GrammarCache& grammars() const { return grammars_; }

 private:
  ServedModel() = default;
  Status read_tokenizer_config(const CheckpointText& text);
  Status read_generation_config(const CheckpointText& text);
  void find_fim_tokens();
  void add_end_token(std::string_view token);

  ServedModelOptions options_;
  int64_t created_ = 0;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<text::ChatTemplate> chat_template_;
  std::unique_ptr<PromptGuard> guard_;
  text::ToolStyle tool_style_ = text::ToolStyle::kNone;
  ToolSupport tool_support_;
  bool reasons_ = false;
  std::optional<int32_t> think_end_;
  GenerationDefaults defaults_;
  std::vector<int32_t> end_tokens_;
  std::string bos_, eos_;
  std::optional<FimTokens> fim_;
  mutable GrammarCache grammars_;
  mutable std::once_flag trie_once_;
  mutable std::shared_ptr<const text::TokenTrie> trie_;
  std::unique_ptr<engine::Engine> engine_;  // last: its thread stops before the rest goes
};

}  // namespace spillway::server
