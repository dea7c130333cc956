#include "server/one_shot/text_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "models/sentence_config.h"

namespace spillway::server {
namespace {

namespace json = boost::json;
using api::ApiError;
using api::ErrorKind;
using text::Encoding;

// The object in a file of the folder; empty when there is no such file.
Result<json::object> read_object(const std::string& folder, const char* name) {
  const std::filesystem::path path = std::filesystem::path(folder) / name;
  std::error_code missing;
  if (folder.empty() || !std::filesystem::exists(path, missing)) return json::object();
  std::ifstream file(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  json::error_code error;
  json::value value = json::parse(bytes, error);
  if (error) return corrupt(path.string() + ": expected JSON, found " + error.message());
  if (!value.is_object()) return corrupt(path.string() + ": expected a JSON object");
  return std::move(value.get_object());
}

// A length limit; files say 1e30 for "none".
int limit_of(const json::object& config, std::string_view key, int most) {
  const json::value* value = config.if_contains(key);
  if (value == nullptr || !value->is_number()) return most;
  const auto limit = value->to_number<double>();
  return limit >= 1 && limit < most ? static_cast<int>(limit) : most;
}

void append(Encoding& to, const Encoding& from, size_t begin, size_t count) {
  to.ids.insert(to.ids.end(), from.ids.begin() + begin, from.ids.begin() + begin + count);
  for (size_t i = begin; i < begin + count; ++i) to.type_ids.push_back(i < from.type_ids.size() ? from.type_ids[i] : 0);
}

void append(Encoding& to, const std::vector<int32_t>& ids, int32_t type) {
  to.ids.insert(to.ids.end(), ids.begin(), ids.end());
  to.type_ids.insert(to.type_ids.end(), ids.size(), type);
}

// Where the ids of a text stand within those with special tokens.
std::optional<size_t> position_of(const std::vector<int32_t>& whole, const std::vector<int32_t>& part, size_t from) {
  const auto at = std::search(whole.begin() + from, whole.end(), part.begin(), part.end());
  if (at == whole.end()) return std::nullopt;
  return at - whole.begin();
}

void cut(std::vector<int32_t>& ids, size_t most, bool from_left) {
  if (ids.size() <= most) return;
  if (from_left) {
    ids.erase(ids.begin(), ids.end() - most);
  } else {
    ids.resize(most);
  }
}

}  // namespace

Result<std::unique_ptr<const TextInputs>> TextInputs::make(const text::Tokenizer& tokenizer, const std::string& folder,
                                                           int tokens_max, int vocab_size) {
  std::unique_ptr<TextInputs> inputs(new TextInputs(tokenizer));
  inputs->tokens_max_ = tokens_max;
  inputs->vocab_size_ = vocab_size;
  SW_TRY(inputs->read_folder(folder));
  SW_TRY(inputs->learn_frames());
  return std::unique_ptr<const TextInputs>(std::move(inputs));
}

Status TextInputs::read_folder(const std::string& folder) {
  SW_ASSIGN(const json::object tokenizer, read_object(folder, "tokenizer_config.json"));
  tokens_max_ = limit_of(tokenizer, "model_max_length", tokens_max_);
  SW_ASSIGN(const models::SentenceConfig sentence, models::read_sentence_config(folder));
  if (sentence.tokens_max) tokens_max_ = std::min(tokens_max_, *sentence.tokens_max);
  prompts_.insert(sentence.prompts.begin(), sentence.prompts.end());
  if (sentence.default_prompt.empty()) return {};
  const auto chosen = prompts_.find(sentence.default_prompt);
  if (chosen == prompts_.end()) {
    return corrupt("config_sentence_transformers.json: default_prompt_name: there is no prompt of that name");
  }
  default_prompt_ = chosen->second;
  return {};
}

Status TextInputs::learn_frames() {
  // Any word will do; both are in the vocabulary of whatever knows letters or bytes.
  constexpr std::string_view kFirst = "one", kSecond = "two words";
  const Encoding first = tokenizer_.encode(kFirst, {.add_special_tokens = false});
  const Encoding second = tokenizer_.encode(kSecond, {.add_special_tokens = false});
  const Encoding single = tokenizer_.encode(kFirst);
  const Encoding both = tokenizer_.encode_pair(kFirst, kSecond);
  const auto alone = position_of(single.ids, first.ids, 0);
  const auto left = position_of(both.ids, first.ids, 0);
  const auto right = left ? position_of(both.ids, second.ids, *left + first.ids.size()) : std::nullopt;
  if (!alone || !right || first.ids.empty()) {
    return unsupported("tokenizer.json: the post-processor changes more than adding tokens around the texts");
  }
  append(one_.before, single, 0, *alone);
  append(one_.after, single, *alone + first.ids.size(), single.ids.size() - *alone - first.ids.size());
  append(pair_.before, both, 0, *left);
  const size_t between = *left + first.ids.size();
  append(pair_.between, both, between, *right - between);
  const size_t after = *right + second.ids.size();
  append(pair_.after, both, after, both.ids.size() - after);
  const auto type_at = [](const Encoding& e, size_t i) { return i < e.type_ids.size() ? e.type_ids[i] : 0; };
  one_.first_type = type_at(single, *alone);
  pair_.first_type = type_at(both, *left);
  pair_.second_type = type_at(both, *right);
  if (tokens_max_ <= pair_.tokens()) return unsupported(fmt::format("the model takes {} tokens", tokens_max_));
  return {};
}

int TextInputs::limit(const api::Truncation& truncation) const {
  return truncation.tokens_max > 0 ? std::min(truncation.tokens_max, tokens_max_) : tokens_max_;
}

ApiError TextInputs::too_long(size_t tokens, int limit) const {
  return {ErrorKind::kInvalidFormat,
          fmt::format("expected at most {} tokens, found {}; ask for truncation or shorten the text", limit, tokens),
          "", "context_length_exceeded"};
}

api::Parsed<Encoding> TextInputs::one(std::string_view text, const api::Truncation& truncation) const {
  std::vector<int32_t> ids = tokenizer_.encode(text, {.add_special_tokens = false, .parse_added_tokens = false}).ids;
  const int most = limit(truncation);
  const size_t total = ids.size() + one_.tokens();
  if (total > size_t(most)) {
    if (!truncation.cut) return too_long(total, most);
    cut(ids, std::max(most - one_.tokens(), 0), truncation.from_left);
  }
  Encoding out = one_.before;
  append(out, ids, one_.first_type);
  append(out, one_.after, 0, one_.after.ids.size());
  return out;
}

// The longer text loses first, as Hugging Face's longest_first.
api::Parsed<Encoding> TextInputs::pair(std::string_view first, std::string_view second,
                                       const api::Truncation& truncation) const {
  const text::EncodeOptions bare{.add_special_tokens = false, .parse_added_tokens = false};
  std::vector<int32_t> a = tokenizer_.encode(first, bare).ids, b = tokenizer_.encode(second, bare).ids;
  const int most = limit(truncation);
  const size_t total = a.size() + b.size() + pair_.tokens();
  if (total > size_t(most)) {
    if (!truncation.cut) return too_long(total, most);
    const size_t room = std::max(most - pair_.tokens(), 0);
    const size_t shorter = std::min(a.size(), b.size());
    const bool short_stays = shorter <= room / 2;
    const size_t room_a = short_stays ? (a.size() == shorter ? shorter : room - shorter) : (room + 1) / 2;
    cut(a, room_a, truncation.from_left);
    cut(b, room - std::min(room, a.size()), truncation.from_left);
  }
  Encoding out = pair_.before;
  append(out, a, pair_.first_type);
  append(out, pair_.between, 0, pair_.between.ids.size());
  append(out, b, pair_.second_type);
  append(out, pair_.after, 0, pair_.after.ids.size());
  return out;
}

api::Parsed<Encoding> TextInputs::any(const api::TextOrIds& input, std::string_view prompt,
                                      const api::Truncation& truncation) const {
  if (const auto* text = std::get_if<std::string>(&input)) {
    return prompt.empty() ? one(*text, truncation) : one(std::string(prompt) + *text, truncation);
  }
  Encoding out;
  out.ids = std::get<std::vector<int32_t>>(input);
  const auto outside = std::ranges::find_if(out.ids, [&](int32_t id) { return id < 0 || id >= vocab_size_; });
  if (outside != out.ids.end()) {
    return ApiError{ErrorKind::kInvalidParameters,
                    fmt::format("expected token ids from 0 to {}, found {}", vocab_size_ - 1, *outside), "", ""};
  }
  const int most = limit(truncation);
  if (out.ids.size() > size_t(most)) {
    if (!truncation.cut) return too_long(out.ids.size(), most);
    cut(out.ids, most, truncation.from_left);
  }
  return out;
}

api::Parsed<std::string> TextInputs::prompt(std::string_view name) const {
  if (name.empty()) return default_prompt_;
  const auto found = prompts_.find(name);
  if (found != prompts_.end()) return found->second;
  std::string known;
  for (const auto& [each, text] : prompts_) known += (known.empty() ? "" : ", ") + each;
  return ApiError{ErrorKind::kInvalidParameters,
                  fmt::format("expected one of the model's prompts ({}), found \"{}\"", known.empty() ? "none" : known,
                              api::utf8_lossy(name)),
                  "prompt_name", ""};
}

}  // namespace spillway::server
