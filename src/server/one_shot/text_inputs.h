// TextInputs: how one encoder's inputs are made of text: its tokenizer with the special tokens of one text and of a
// pair, cutting to the model's length, and the prompts of sentence-transformers. Read from the checkpoint's folder;
// immutable, any thread. Not its job: the engine.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/encode.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace spillway::server {

class TextInputs {
 public:
  // tokens_max, vocab_size: the model's own. The folder's sentence_bert_config.json and tokenizer_config.json may say
  // that fewer tokens are meant to be used.
  static Result<std::unique_ptr<const TextInputs>> make(const text::Tokenizer& tokenizer, const std::string& folder,
                                                        int tokens_max, int vocab_size);

  api::Parsed<text::Encoding> one(std::string_view text, const api::Truncation& truncation) const;
  api::Parsed<text::Encoding> pair(std::string_view first, std::string_view second,
                                   const api::Truncation& truncation) const;
  // ids are taken as they are, special tokens included.
  api::Parsed<text::Encoding> any(const api::TextOrIds& input, std::string_view prompt,
                                  const api::Truncation& truncation) const;

  // Of sentence-transformers' "prompts"; an empty name is the default one. An error names those that there are.
  api::Parsed<std::string> prompt(std::string_view name) const;

  int tokens_max() const { return tokens_max_; }

 private:
  // The special tokens around the texts, found by encoding with and without.
  struct Frame {
    text::Encoding before, between, after;
    int32_t first_type = 0, second_type = 0;
    int tokens() const { return static_cast<int>(before.ids.size() + between.ids.size() + after.ids.size()); }
  };

  explicit TextInputs(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  Status read_folder(const std::string& folder);
  Status learn_frames();
  int limit(const api::Truncation& truncation) const;
  api::ApiError too_long(size_t tokens, int limit) const;

  const text::Tokenizer& tokenizer_;
  int tokens_max_ = 0;
  int vocab_size_ = 0;
  Frame one_, pair_;
  std::map<std::string, std::string, std::less<>> prompts_;
  std::string default_prompt_;
};

}  // namespace spillway::server
