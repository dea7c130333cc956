// The BPE model: a piece falls into bytes or characters, which the merges join again.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/bpe_merge.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

namespace json = boost::json;

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

  Status load(const JsonAt& at);

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
  Status load_vocabulary(const JsonAt& at);
  Status load_merges(const JsonAt& at);
  Status add_merge(std::string_view left, std::string_view right, uint32_t rank, const JsonAt& at);
  int32_t find_written(std::string_view token, std::string& bytes) const;

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

Status Bpe::load(const JsonAt& at) {
  SW_TRY(load_vocabulary(at));
  SW_TRY(load_merges(at));
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

Status Bpe::load_vocabulary(const JsonAt& at) {
  SW_ASSIGN(const JsonAt vocab, at.child("vocab"));
  const size_t count = vocab.object().size();
  vocabulary_.reserve(count, count * 8);
  std::string bytes;
  for (const auto& item : vocab.object()) {
    const std::string_view token = item.key();
    const json::value& value = item.value();
    if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() >= kTokenIdLimit) {
      return vocab.wrong(token, fmt::format("an integer below {}", kTokenIdLimit));
    }
    const auto id = int32_t(value.get_int64());
    const bool in_alphabet = options_.byte_level && bytes_of_alphabet(token, bytes);
    Vocabulary& target = options_.byte_level && !in_alphabet ? others_ : vocabulary_;
    const Vocabulary& rest = &target == &others_ ? vocabulary_ : others_;
    if (rest.contains(id) || !target.add(in_alphabet ? std::string_view(bytes) : token, id)) {
      return vocab.wrong(token, "an id of its own");
    }
  }
  return {};
}

int32_t Bpe::find_written(std::string_view token, std::string& bytes) const {
  if (!options_.byte_level) return vocabulary_.find(token);
  return bytes_of_alphabet(token, bytes) ? vocabulary_.find(bytes) : others_.find(token);
}

Status Bpe::add_merge(std::string_view left, std::string_view right, uint32_t rank, const JsonAt& at) {
  thread_local std::string bytes, joined;
  const auto missing = [&](std::string_view token) {
    return invalid(fmt::format("expected tokens of the vocabulary at {}[{}], found \"{:.60}\"", at.path_of("merges"), rank,
                               token));
  };
  const int32_t left_id = find_written(left, bytes);
  if (left_id < 0) return missing(left);
  const int32_t right_id = find_written(right, bytes);
  if (right_id < 0) return missing(right);
  joined.assign(left);
  if (!right.starts_with(options_.prefix)) return missing(right);
  joined.append(right.substr(options_.prefix.size()));
  const int32_t id = find_written(joined, bytes);
  if (id < 0) return missing(joined);
  merges_.add(left_id, right_id, {rank, id});
  return {};
}

Status Bpe::load_merges(const JsonAt& at) {
  const json::value* merges = at.find("merges");
  if (!merges || !merges->is_array()) return at.wrong("merges", "an array");
  merges_.reserve(merges->get_array().size());
  uint32_t rank = 0;
  for (const json::value& merge : merges->get_array()) {
    std::string_view left, right;
    if (const json::string* text = merge.if_string()) {
      const std::string_view line = *text;
      const size_t space = line.find(' ');
      if (space != std::string_view::npos) left = line.substr(0, space), right = line.substr(space + 1);
    } else if (const json::array* pair = merge.if_array(); pair && pair->size() == 2) {
      if ((*pair)[0].is_string() && (*pair)[1].is_string()) left = (*pair)[0].get_string(), right = (*pair)[1].get_string();
    }
    if (left.empty() || right.empty()) {
      return invalid(fmt::format("expected \"left right\" or [left, right] at {}[{}], found {}", at.path_of("merges"), rank,
                                 json_kind(merge)));
    }
    SW_TRY(add_merge(left, right, rank++, at));
  }
  return {};
}

}  // namespace

Result<Owned> parse_bpe(const JsonAt& at, bool byte_level) {
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
  SW_TRY(bpe->load(at));
  return Owned(std::move(bpe));
}

}  // namespace spillway::text
