// POST /completions (legacy text completion, fill-in-the-middle with suffix) and the small bodies: models, tokenize,
// detokenize. Pure functions over plain values, any thread.
#pragma once

#include <boost/json/value.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/chat.h"
#include "api/common.h"
#include "api/errors.h"

namespace spillway::api {

using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  std::string model;
  std::vector<Prompt> prompts;        // one a prompt of the array; at least one
  std::optional<std::string> suffix;  // fill-in-the-middle
  bool echo = false;
  std::optional<int> logprobs;  // [0, 20]
  Sampling sampling;            // max_tokens 0 is allowed with echo
  StreamOptions stream;
  ResponseFormat format;
  bool add_special_tokens = true;
  RequestPriority priority = RequestPriority::kNormal;
  std::optional<int64_t> deadline_ms;  // >= 0: the whole answer is wanted within this; past it the request ends
  std::string user;
};

Parsed<CompletionRequest> parse_completion_request(std::string_view body);
Parsed<CompletionRequest> parse_completion_request(const boost::json::value& body);

// logprobs of a completion: parallel arrays. The first token of an echoed prompt has none (null).
struct CompletionLogprob {
  TokenLogprobs token;
  bool known = true;    // false: logprob and top are null
  int text_offset = 0;  // in characters (code points) of the whole choice text
};

struct CompletionChoice {
  int index = 0;
  std::string text;
  std::optional<std::vector<CompletionLogprob>> logprobs;
  FinishReason finish_reason = FinishReason::kStop;
};

std::string completion_response(const ResponseHead& head, const std::vector<CompletionChoice>& choices,
                                const Usage& usage);

// A chunk without finish (reason null), or the last of a choice. usage as in ChatChunks.
std::string completion_chunk(const ResponseHead& head, int index, std::string_view text,
                             const std::vector<CompletionLogprob>* logprobs, bool include_usage);
std::string completion_finish_chunk(const ResponseHead& head, int index, FinishReason reason, const Usage* usage,
                                    bool include_usage);
std::string completion_usage_chunk(const ResponseHead& head, const Usage& usage);

// ---- models, tokenize, detokenize ----

struct ModelEntry {
  std::string id;
  int64_t created = 0;
  std::string owned_by;
  std::string root;       // the model an alias stands for; empty: itself
  int max_model_len = 0;  // 0: left out
  std::string version;    // of a one-shot model: adds TensorFlow Serving's model_version_status; empty: left out
};
enum class ModelsDialect { kOpenAi, kAnthropic };
std::string models_response(const std::vector<ModelEntry>& models, ModelsDialect dialect = ModelsDialect::kOpenAi);
std::string model_response(const ModelEntry& model, ModelsDialect dialect = ModelsDialect::kOpenAi);

struct TokenizeRequest {
  std::string model;
  std::optional<std::string> prompt;  // or chat
  std::optional<ChatRequest> chat;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};
Parsed<TokenizeRequest> parse_tokenize_request(std::string_view body);
std::string tokenize_response(const std::vector<int32_t>& tokens, int max_model_len,
                              const std::vector<std::string>* token_strs);

struct DetokenizeRequest {
  std::string model;
  std::vector<int32_t> tokens;
};
Parsed<DetokenizeRequest> parse_detokenize_request(std::string_view body);
std::string detokenize_response(std::string_view prompt);

}  // namespace spillway::api
