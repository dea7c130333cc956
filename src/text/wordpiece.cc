// The word-level and WordPiece models: whole words, or the longest known prefixes.
#include <fmt/format.h>

#include <algorithm>

#include "text/tokenizer_bulk.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

using Owned = std::unique_ptr<const TokenModel>;

struct Words {
  Vocabulary vocabulary;
  int32_t unknown = -1;
};

Result<Words> parse_words(const JsonAt& at, const BulkParts& parts) {
  if (parts.vocab.empty()) return at.wrong("vocab", "an object");
  Words words;
  words.vocabulary.reserve(parts.vocab.size() / 16, parts.vocab.size() / 2);
  const std::string path = at.path_of("vocab");
  SW_TRY(read_vocab(parts.vocab, path, [&](std::string_view token, int64_t id) -> Status {
    if (id >= 0 && id < kTokenIdLimit && words.vocabulary.add(token, int32_t(id))) return {};
    return wrong_token_id(path, token, id);
  }));
  SW_ASSIGN(const std::string unknown, at.string("unk_token"));
  words.unknown = words.vocabulary.find(unknown);
  if (words.unknown < 0) return at.wrong("unk_token", "a token of the vocabulary");
  return words;
}

class WordLevel : public TokenModel {
 public:
  explicit WordLevel(Words words) : words_(std::move(words)) {}

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    const int32_t id = words_.vocabulary.find(piece);
    out.push_back(id >= 0 ? id : words_.unknown);
  }
  int32_t id_of(std::string_view token) const override { return words_.vocabulary.find(token); }
  std::string_view token(int32_t id) const override { return words_.vocabulary.token(id); }
  int32_t size() const override { return words_.vocabulary.size(); }

 protected:
  Words words_;
};

class WordPiece : public WordLevel {
 public:
  WordPiece(Words words, const std::string& prefix, size_t characters_max)
      : WordLevel(std::move(words)), characters_max_(characters_max) {
    const Vocabulary& all = words_.vocabulary;
    for (int32_t id = 0; id < all.size(); ++id) {
      const std::string_view token = all.token(id);
      if (token.starts_with(prefix)) inner_.add(token.substr(prefix.size()), id);
      length_max_ = std::max(length_max_, token.size());
    }
  }

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    size_t characters = 0;
    for (size_t i = 0; i < piece.size(); i += size_t(utf8_length(piece[i]))) ++characters;
    const size_t before = out.size();
    if (characters <= characters_max_ && encode_known(piece, out)) return;
    out.resize(before);
    out.push_back(words_.unknown);
  }

 private:
  bool encode_known(std::string_view piece, std::vector<int32_t>& out) const {
    const Vocabulary* vocabulary = &words_.vocabulary;
    while (!piece.empty()) {
      size_t length = std::min(piece.size(), length_max_);
      int32_t id = -1;
      for (; length > 0; --length) {
        if (length < piece.size() && (uint8_t(piece[length]) & 0xC0) == 0x80) continue;  // within a character
        id = vocabulary->find(piece.substr(0, length));
        if (id >= 0) break;
      }
      if (id < 0) return false;
      out.push_back(id);
      piece.remove_prefix(length);
      vocabulary = &inner_;
    }
    return true;
  }

  Vocabulary inner_;  // tokens that continue a word, without their prefix
  size_t length_max_ = 0;
  size_t characters_max_;
};

}  // namespace

Result<Owned> parse_word_level(const JsonAt& at, const BulkParts& parts) {
  SW_ASSIGN(Words words, parse_words(at, parts));
  return Owned(std::make_unique<WordLevel>(std::move(words)));
}

Result<Owned> parse_word_piece(const JsonAt& at, const BulkParts& parts) {
  SW_ASSIGN(Words words, parse_words(at, parts));
  SW_ASSIGN(const auto prefix, at.optional_string("continuing_subword_prefix"));
  int64_t characters_max = 100;
  if (at.find("max_input_chars_per_word")) {
    SW_ASSIGN(characters_max, at.integer("max_input_chars_per_word", 1, 100'000));
  }
  return Owned(std::make_unique<WordPiece>(std::move(words), prefix.value_or("##"), size_t(characters_max)));
}

Result<Owned> TokenModel::parse(const JsonAt& at, const BulkParts& parts, bool byte_level) {
  std::string type = "BPE";  // files of old have no type
  if (at.find("type")) {
    SW_ASSIGN(type, at.string("type"));
  }
  if (type == "BPE") return parse_bpe(at, parts, byte_level);
  if (byte_level) return unsupported(fmt::format("a ByteLevel pre-tokenizer before a {} model at {}", type, at.path()));
  if (type == "WordPiece") return parse_word_piece(at, parts);
  if (type == "WordLevel") return parse_word_level(at, parts);
  return unsupported(at.wrong("type", "BPE, WordPiece or WordLevel (Unigram is not supported)").message);
}

}  // namespace spillway::text
