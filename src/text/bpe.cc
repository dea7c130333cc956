// The BPE model: a piece falls into bytes or characters, which the merges join again.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/bpe_merge.h"
#include "text/tokenizer_bulk.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

using Owned = std::unique_ptr<const TokenModel>;

struct BpeOptions {
  bool byte_level = false;
  bool byte_fallback = false;
  bool fuse_unknown = false;
  bool ignore_merges = false;
  std::string prefix;  // of symbols that continue a word
  std::string suffix;  // of the symbol that ends a word
};

class Bpe : public TokenModel {
 public:
  explicit Bpe(BpeOptions options) : options_(std::move(options)) {}

  Status load(const JsonAt& at, const BulkParts& parts);

  void encode(std::string_view piece, std::vector<int32_t>& out) const override {
    if (options_.ignore_merges) {
      if (const int32_t id = vocabulary_.find(piece); id >= 0) return out.push_back(id);
    }
    const size_t begin = out.size();
    if (options_.byte_level && options_.prefix.empty() && options_.suffix.empty()) {
      append_bytes(piece, out);
    } else {
      append_characters(piece, out);
    }
    merges_.apply(out, begin);
  }

  int32_t id_of(std::string_view token) const override {
    if (!options_.byte_level) return vocabulary_.find(token);
    std::string bytes;
    if (!is_valid_utf8(token) || !bytes_of_alphabet(token, bytes)) return others_.find(token);
    return vocabulary_.find(bytes);
  }
  std::string_view token(int32_t id) const override {
    return vocabulary_.contains(id) ? vocabulary_.token(id) : others_.token(id);
  }
  int32_t size() const override { return std::max(vocabulary_.size(), others_.size()); }

 private:
  Status load_vocabulary(const JsonAt& at, const BulkParts& parts);
  Status load_merges(const JsonAt& at, const BulkParts& parts);

  void append_bytes(std::string_view piece, std::vector<int32_t>& out) const {
    bool unknown_before = false;
    for (const char byte : piece) {
      const int32_t id = byte_ids_[uint8_t(byte)];
      if (id >= 0) out.push_back(id);
      if (id < 0) append_unknown(unknown_before, out);
      unknown_before = id < 0;
    }
  }

  void append_characters(std::string_view piece, std::vector<int32_t>& out) const {
    bool unknown_before = false;
    std::string symbol;
    for (size_t i = 0; i < piece.size();) {
      const size_t length = options_.byte_level ? 1 : size_t(utf8_length(piece[i]));
      symbol.clear();
      if (i > 0) symbol += options_.prefix;
      symbol.append(piece, i, length);
      i += length;
      if (i >= piece.size()) symbol += options_.suffix;
      const int32_t id = vocabulary_.find(symbol);
      const bool known = id >= 0 || append_fallback(symbol, out);
      if (id >= 0) out.push_back(id);
      if (!known) append_unknown(unknown_before, out);
      unknown_before = !known;
    }
  }

  // The <0x..> tokens of a symbol's bytes, when there are all of them.
  bool append_fallback(std::string_view symbol, std::vector<int32_t>& out) const {
    if (!options_.byte_fallback) return false;
    for (const char byte : symbol) {
      if (fallback_ids_[uint8_t(byte)] < 0) return false;
    }
    for (const char byte : symbol) out.push_back(fallback_ids_[uint8_t(byte)]);
    return true;
  }

  void append_unknown(bool unknown_before, std::vector<int32_t>& out) const {
    if (unknown_ >= 0 && !(options_.fuse_unknown && unknown_before)) out.push_back(unknown_);
  }

  BpeOptions options_;
  Vocabulary vocabulary_;  // byte_level: by their bytes
  Vocabulary others_;      // byte_level: tokens that are not written in the alphabet; no text reaches them
  MergeTable merges_;
  int32_t unknown_ = -1;
  std::array<int32_t, 256> byte_ids_{};
  std::array<int32_t, 256> fallback_ids_{};
};

Status Bpe::load(const JsonAt& at, const BulkParts& parts) {
  SW_TRY(load_vocabulary(at, parts));
  SW_TRY(load_merges(at, parts));
  for (int byte = 0; byte < 256; ++byte) {
    const char c = char(byte);
    byte_ids_[size_t(byte)] = vocabulary_.find({&c, 1});
    fallback_ids_[size_t(byte)] = id_of(fmt::format("<0x{:02X}>", byte));
  }
  SW_ASSIGN(const auto unknown, at.optional_string("unk_token"));
  if (unknown) {
    unknown_ = id_of(*unknown);
    if (unknown_ < 0) return at.wrong("unk_token", "a token of the vocabulary");
  }
  return {};
}

Status Bpe::load_vocabulary(const JsonAt& at, const BulkParts& parts) {
  if (parts.vocab.empty()) return at.wrong("vocab", "an object");
  vocabulary_.reserve(parts.vocab.size() / 16, parts.vocab.size() / 2);
  const std::string path = at.path_of("vocab");
  std::string bytes;
  return read_vocab(parts.vocab, path, [&](std::string_view token, int64_t id) -> Status {
    const bool in_alphabet = options_.byte_level && bytes_of_alphabet(token, bytes);
    Vocabulary& target = options_.byte_level && !in_alphabet ? others_ : vocabulary_;
    const Vocabulary& rest = &target == &others_ ? vocabulary_ : others_;
    const bool fits = id >= 0 && id < kTokenIdLimit && !rest.contains(int32_t(id));
    if (fits && target.add(in_alphabet ? std::string_view(bytes) : token, int32_t(id))) return {};
    return wrong_token_id(path, token, id);
  });
}

Status Bpe::load_merges(const JsonAt& at, const BulkParts& parts) {
  if (parts.merges.empty()) return at.wrong("merges", "an array");
  merges_.reserve(size_t(vocabulary_.count()));
  const std::string path = at.path_of("merges");
  std::string left_bytes, right_bytes, bytes;
  int32_t next_id = -1;  // merges mostly come in the order of their ids
  return read_merges(parts.merges, path, [&](std::string_view left, std::string_view right, uint32_t rank) -> Status {
    const auto missing = [&](std::string_view token) {
      return invalid(fmt::format("expected tokens of the vocabulary at {}[{}], found \"{:.60}\"", path, rank, token));
    };
    if (options_.byte_level) {
      if (!bytes_of_alphabet(left, left_bytes)) return missing(left);
      if (!bytes_of_alphabet(right, right_bytes)) return missing(right);
      left = left_bytes, right = right_bytes;
    }
    const int32_t left_id = vocabulary_.find(left), right_id = vocabulary_.find(right);
    if (left_id < 0) return missing(left);
    if (right_id < 0 || !right.starts_with(options_.prefix)) return missing(right);
    bytes.assign(left).append(right.substr(options_.prefix.size()));
    const bool guessed = vocabulary_.contains(next_id) && vocabulary_.token(next_id) == bytes;
    const int32_t id = guessed ? next_id : vocabulary_.find(bytes);
    if (id < 0) return missing(bytes);
    merges_.add(left_id, right_id, {rank, id});
    next_id = id + 1;
    return {};
  });
}

}  // namespace

Result<Owned> parse_bpe(const JsonAt& at, const BulkParts& parts, bool byte_level) {
  BpeOptions options;
  options.byte_level = byte_level;
  SW_ASSIGN(options.byte_fallback, at.boolean("byte_fallback", false));
  SW_ASSIGN(options.fuse_unknown, at.boolean("fuse_unk", false));
  SW_ASSIGN(options.ignore_merges, at.boolean("ignore_merges", false));
  SW_ASSIGN(const auto prefix, at.optional_string("continuing_subword_prefix"));
  SW_ASSIGN(const auto suffix, at.optional_string("end_of_word_suffix"));
  options.prefix = prefix.value_or("");
  options.suffix = suffix.value_or("");
  auto bpe = std::make_unique<Bpe>(std::move(options));
  SW_TRY(bpe->load(at, parts));
  return Owned(std::move(bpe));
}

}  // namespace spillway::text
