#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/stream_parser.hpp>

#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_bulk.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_piece_cache.h"
#include "text/tokenizer_template.h"
#include "text/tokenizer_vocab.h"
#include "text/unicode.h"

namespace spillway::text {

namespace json = boost::json;

namespace {

class JsonTokenizer : public Tokenizer {
 public:
  Status load(const JsonAt& root, const BulkParts& parts);

  Encoding encode(std::string_view text, EncodeOptions options) const override {
    return processor_.single(ids_of(text, options), options.add_special_tokens);
  }

  Encoding encode_pair(std::string_view first, std::string_view second, EncodeOptions options) const override {
    return processor_.pair(ids_of(first, options), ids_of(second, options), options.add_special_tokens);
  }

  std::string decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const override {
    std::string out;
    bool first = true;
    for (const int32_t id : ids) {
      if (skip_special_tokens && is_special(id)) continue;
      append_bytes(id, first, out);
      first = false;
    }
    return is_valid_utf8(out) ? out : repair_utf8(out);
  }

  std::string_view token_bytes(int32_t id) const override {
    if (const AddedToken* added = added_token(id); added && !tables_) return added->content;
    return tables_ ? decoded_.token(id) : model_->token(id);
  }

  void append_bytes(int32_t id, bool first, std::string& out) const override {
    if (!first || !tables_) {
      out.append(token_bytes(id));
    } else if (const AddedToken* added = added_token(id)) {
      out.append(decoder_.decode(added->content, true));
    } else if (const std::string_view token = model_->token(id); !token.empty()) {
      out.append(decoder_.decode(token, true));
    }
  }

  std::optional<int32_t> id_of(std::string_view token) const override {
    for (const AddedToken& added : added_) {
      if (added.content == token) return added.id;
    }
    const int32_t id = model_->id_of(token);
    return id < 0 ? std::nullopt : std::optional(id);
  }

  bool is_special(int32_t id) const override {
    const AddedToken* added = added_token(id);
    return added && added->special;
  }
  bool is_added(int32_t id) const override { return added_token(id) != nullptr; }
  int32_t vocab_size() const override { return std::max(model_->size(), int32_t(added_index_.size())); }

 private:
  Status load_added(const JsonAt& root);
  Status load_decoder(const JsonAt& root, bool byte_level);
  std::vector<int32_t> ids_of(std::string_view text, EncodeOptions options) const;
  void encode_text(std::string_view text, bool at_start, bool parse_added, std::vector<int32_t>& out) const;
  void encode_pieces(std::string_view text, bool at_start, std::vector<int32_t>& out) const;

  const AddedToken* added_token(int32_t id) const {
    if (id < 0 || size_t(id) >= added_index_.size() || added_index_[size_t(id)] < 0) return nullptr;
    return &added_[size_t(added_index_[size_t(id)])];
  }

  std::unique_ptr<const Normalizer> normalizer_;       // may be null
  std::unique_ptr<const PreTokenizer> pre_tokenizer_;  // may be null
  std::unique_ptr<const TokenModel> model_;
  PostProcessor processor_;
  TokenDecoder decoder_;
  bool tables_ = false;  // tokens go through the decoder
  TokenTable decoded_;   // what they give within an output, when tables_
  std::vector<AddedToken> added_;
  std::vector<int32_t> added_index_;  // by id: index of added_, or -1
  AddedTokenMatcher raw_matcher_;
  AddedTokenMatcher normalized_matcher_;
};

Status JsonTokenizer::load(const JsonAt& root, const BulkParts& parts) {
  bool byte_level = false;
  if (root.find("normalizer")) {
    SW_ASSIGN(const JsonAt at, root.child("normalizer"));
    SW_ASSIGN(normalizer_, Normalizer::parse(at));
  }
  if (root.find("pre_tokenizer")) {
    SW_ASSIGN(const JsonAt at, root.child("pre_tokenizer"));
    SW_ASSIGN(pre_tokenizer_, PreTokenizer::parse(at, byte_level));
  }
  if (root.find("post_processor")) {
    SW_ASSIGN(const JsonAt at, root.child("post_processor"));
    SW_ASSIGN(processor_, PostProcessor::parse(at));
  }
  SW_ASSIGN(const JsonAt model, root.child("model"));
  SW_ASSIGN(model_, TokenModel::parse(model, parts, byte_level));
  SW_TRY(load_added(root));
  return load_decoder(root, byte_level);
}

Status JsonTokenizer::load_added(const JsonAt& root) {
  SW_ASSIGN(added_, parse_added_tokens(root));
  for (size_t i = 0; i < added_.size(); ++i) {
    const AddedToken& token = added_[i];
    if (size_t(token.id) >= added_index_.size()) added_index_.resize(size_t(token.id) + 1, -1);
    added_index_[size_t(token.id)] = int32_t(i);
    if (!token.normalized) {
      raw_matcher_.add(token, token.content);
      continue;
    }
    std::string content = token.content;
    if (normalizer_) normalizer_->apply(content);
    normalized_matcher_.add(token, content);
  }
  return {};
}

Status JsonTokenizer::load_decoder(const JsonAt& root, bool byte_level) {
  if (root.find("decoder")) {
    SW_ASSIGN(const JsonAt at, root.child("decoder"));
    SW_ASSIGN(decoder_, TokenDecoder::parse(at));
    if (decoder_.is_byte_level() != byte_level) {
      return unsupported(
          "a ByteLevel pre-tokenizer and a ByteLevel decoder need each other, found one at $.decoder alone");
    }
  } else if (byte_level) {
    decoder_ = TokenDecoder::byte_level();
  }
  tables_ = !decoder_.is_identity();
  if (!tables_) return {};
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const AddedToken* added = added_token(id);
    const std::string_view token = added ? std::string_view(added->content) : model_->token(id);
    decoded_.push_back(token.empty() ? std::string() : decoder_.decode(token, false));
  }
  return {};
}

std::vector<int32_t> JsonTokenizer::ids_of(std::string_view text, EncodeOptions options) const {
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
  std::vector<int32_t> out;
  out.reserve(text.size() / 3 + 8);
  if (!options.parse_added_tokens || raw_matcher_.empty()) {
    encode_text(text, true, options.parse_added_tokens, out);
    return out;
  }
  std::vector<Segment> segments;
  raw_matcher_.split(text, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      out.push_back(segment.id);
    } else {
      encode_text(segment.text, segment.text.data() == text.data(), true, out);
    }
  }
  return out;
}

void JsonTokenizer::encode_text(std::string_view text, bool at_start, bool parse_added,
                                std::vector<int32_t>& out) const {
  std::string normalized;
  if (normalizer_) {
    normalized = text;
    normalizer_->apply(normalized);
    text = normalized;
  }
  if (!parse_added || normalized_matcher_.empty()) return encode_pieces(text, at_start, out);
  std::vector<Segment> segments;
  normalized_matcher_.split(text, segments);
  for (const Segment& segment : segments) {
    if (segment.id >= 0) {
      out.push_back(segment.id);
    } else {
      encode_pieces(segment.text, at_start && segment.text.data() == text.data(), out);
    }
  }
}

void JsonTokenizer::encode_pieces(std::string_view text, bool at_start, std::vector<int32_t>& out) const {
  if (text.empty()) return;
  Pieces pieces;
  pieces.items = {text};
  pieces.at_start = at_start;
  if (pre_tokenizer_) pre_tokenizer_->apply(pieces);
  PieceCache cache(*model_, pieces.items.size());
  for (const std::string_view piece : pieces.items) cache.encode(piece, out);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::parse(std::string_view text) {
  const BulkParts parts = cut_bulk_parts(text);
  boost::system::error_code error;
  json::monotonic_resource memory;
  json::stream_parser parser(&memory);
  const size_t used = parser.write_some(parts.rest.data(), parts.rest.size(), error);
  if (!error) parser.finish(error);
  if (error || used != parts.rest.size()) {
    const char* const cut = parts.vocab.empty() ? "" : ", vocabulary and merges not counted";
    return corrupt(fmt::format("expected JSON, found a fault at byte {}{} ({})", used, cut, error.message()));
  }
  const json::value document = parser.release();
  SW_ASSIGN(const JsonAt root, JsonAt::make(document, "$"));
  auto tokenizer = std::make_unique<JsonTokenizer>();
  SW_TRY(tokenizer->load(root, parts));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace spillway::text
