// Tokenizer: a Hugging Face tokenizer.json as published: normalizer, pre-tokenizer, BPE or WordPiece model, added
// tokens, post-processor, decoder. Immutable after loading; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::text {

struct EncodeOptions {
  bool add_special_tokens = true;  // run the post-processor (BOS, [CLS] ... [SEP])
  bool parse_added_tokens = true;  // match added tokens in the text; off for text that users control
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // 0 or 1 (second text of a pair)
};

class Tokenizer {
 public:
  // json: the bytes of tokenizer.json. Errors name the component that is missing or not understood.
  static Result<std::unique_ptr<Tokenizer>> parse(std::string_view json);
  virtual ~Tokenizer() = default;

  virtual Encoding encode(std::string_view text, EncodeOptions options = {}) const = 0;
  virtual Encoding encode_pair(std::string_view first, std::string_view second, EncodeOptions options = {}) const = 0;

  // Text of the ids through the decoder. Unknown ids decode to nothing.
  virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const = 0;

  // Bytes that one id stands for in the output of a generation: byte-level tokens as raw bytes (perhaps half a UTF-8
  // character), added tokens as their content. Empty for unknown ids.
  virtual std::string_view token_bytes(int32_t id) const = 0;

  // What decode() makes of one more id: token_bytes, but for the first id of an output, where some decoders drop a
  // space.
  virtual void append_bytes(int32_t id, bool first, std::string& out) const = 0;

  virtual std::optional<int32_t> id_of(
      std::string_view token) const = 0;          // vocabulary or added token, as written there
  virtual bool is_special(int32_t id) const = 0;  // an added token with "special": true
  virtual bool is_added(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;  // highest id + 1
};

// Turns a stream of ids into text that is always whole UTF-8 characters; bytes that no character can have become U+FFFD
// at once. What it gives adds up to decode()'s text. One a sequence; not thread-safe.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);

  std::string push(int32_t id);  // the text that became complete with this id, perhaps empty
  std::string finish();          // what is left; an incomplete character becomes U+FFFD

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  bool first_ = true;    // nothing has come yet
  std::string pending_;  // the bytes of an unfinished character
};

}  // namespace spillway::text
