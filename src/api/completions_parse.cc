#include <fmt/format.h>

#include "api/completions.h"
#include "api/request_parts.h"

namespace spillway::api {
namespace json = boost::json;
namespace {

constexpr size_t kPromptsMax = 1024;

bool is_id(const json::value& value) {
  boost::system::error_code inexact;
  if (!value.is_number()) return false;
  const int64_t id = value.to_number<int64_t>(inexact);
  return !inexact && id >= 0 && id <= INT32_MAX;
}

bool all_ids(const json::array& items) {
  for (const json::value& item : items) {
    if (!is_id(item)) return false;
  }
  return !items.empty();
}

std::vector<int32_t> to_ids(const json::array& items) {
  std::vector<int32_t> ids;
  ids.reserve(items.size());
  for (const json::value& item : items) ids.push_back(item.to_number<int32_t>());
  return ids;
}

// A string, an array of strings, an array of token ids, or an array of such arrays.
void read_prompts(FieldReader& reader, std::vector<Prompt>& out) {
  constexpr auto kExpected =
      "expected a string, an array of strings, an array of token ids or an array of such arrays, found ";
  const json::value* value = reader.find("prompt");
  if (!value) return reader.fail(ErrorKind::kInvalidFormat, "prompt", std::string(kExpected) + "nothing");
  if (value->is_string()) {
    out.emplace_back(std::string(value->get_string()));
    return;
  }
  const json::array* items = value->if_array();
  if (!items) return reader.fail(ErrorKind::kInvalidFormat, "prompt", kExpected + describe(*value));
  if (items->empty())
    return reader.fail(ErrorKind::kInvalidFormat, "prompt", std::string(kExpected) + "an empty array");
  if (all_ids(*items)) {
    out.emplace_back(to_ids(*items));
    return;
  }
  if (items->size() > kPromptsMax) {
    return reader.fail(ErrorKind::kInvalidParameters, "prompt",
                       fmt::format("expected at most {} prompts, found {}", kPromptsMax, items->size()));
  }
  for (const json::value& item : *items) {
    if (item.is_string()) {
      out.emplace_back(std::string(item.get_string()));
    } else if (item.is_array() && all_ids(item.get_array())) {
      out.emplace_back(to_ids(item.get_array()));
    } else {
      return reader.fail(ErrorKind::kInvalidFormat, "prompt", kExpected + describe(item) + " in it");
    }
  }
}

}  // namespace

Parsed<CompletionRequest> parse_completion_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  return parse_completion_request(json::value(std::move(*object)));
}

Parsed<CompletionRequest> parse_completion_request(const json::value& body) {
  if (!body.is_object()) {
    return ApiError{
        ErrorKind::kInvalidFormat, "The request body: expected a JSON object, found " + describe(body), {}, {}};
  }
  std::optional<ApiError> failure;
  FieldReader reader(body.get_object(), "", failure);
  CompletionRequest out;
  reader.string("model", out.model);
  read_prompts(reader, out.prompts);
  reader.string("suffix", out.suffix);
  reader.boolean("echo", out.echo);
  reader.integer("logprobs", 0, kTopLogprobsMax, out.logprobs);
  read_sampling(reader, out.sampling, out.echo ? 0 : 1);
  read_stream(reader, out.stream);
  read_format(reader, out.format);
  reader.boolean("add_special_tokens", out.add_special_tokens);
  read_scheduling(reader, out.priority, out.deadline_ms);
  reader.string("user", out.user);
  if (out.suffix && out.echo)
    reader.fail(ErrorKind::kInvalidParameters, "echo", "is not supported together with suffix");
  if (failure) return *failure;
  return out;
}

Parsed<TokenizeRequest> parse_tokenize_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  TokenizeRequest out;
  reader.string("model", out.model);
  // llama.cpp's clients say "content" where vLLM's say "prompt".
  reader.string("content", out.prompt);
  reader.string("prompt", out.prompt);
  reader.boolean("add_special_tokens", out.add_special_tokens);
  reader.boolean("return_token_strs", out.return_token_strs);
  if (failure) return *failure;
  if (object->contains("messages")) {
    auto chat = parse_chat_request(json::value(*object));
    if (!chat) return chat.error();
    out.chat = std::move(*chat);
  }
  if (!out.prompt && !out.chat)
    reader.fail(ErrorKind::kInvalidFormat, "prompt", "expected a prompt or messages, found neither");
  if (failure) return *failure;
  return out;
}

Parsed<DetokenizeRequest> parse_detokenize_request(std::string_view body) {
  auto object = parse_body(body);
  if (!object) return object.error();
  std::optional<ApiError> failure;
  FieldReader reader(*object, "", failure);
  DetokenizeRequest out;
  reader.string("model", out.model);
  if (!reader.find("tokens"))
    reader.fail(ErrorKind::kInvalidFormat, "tokens", "expected an array of token ids, found nothing");
  read_ids(reader, "tokens", out.tokens);
  if (failure) return *failure;
  return out;
}

}  // namespace spillway::api
