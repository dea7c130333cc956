#include "text/tokenizer_decoder.h"

#include "text/tokenizer_json.h"

namespace spillway::text {

TokenDecoder TokenDecoder::byte_level() {
  TokenDecoder out;
  out.steps_.clear();
  out.byte_level_ = true;
  return out;
}

Result<TokenDecoder> TokenDecoder::parse(const JsonAt& at) {
  TokenDecoder out;
  out.steps_.clear();
  bool fused = false;
  SW_TRY(out.add_steps(at, fused));
  return out;
}

Status TokenDecoder::add_steps(const JsonAt& at, bool& fused) {
  SW_ASSIGN(const std::string type, at.string("type"));
  if (type == "Sequence") {
    SW_ASSIGN(const std::vector<JsonAt> children, at.children("decoders"));
    for (const JsonAt& child : children) SW_TRY(add_steps(child, fused));
  } else if (type == "ByteLevel") {
    byte_level_ = true;
  } else if (type == "Fuse") {
    fused = true;
  } else if (type == "ByteFallback") {
    steps_.push_back(ByteFallback{});
  } else if (type == "WordPiece") {
    SW_ASSIGN(std::string prefix, at.string("prefix"));
    SW_ASSIGN(const bool cleanup, at.boolean("cleanup", true));
    steps_.push_back(WordPiece{std::move(prefix), cleanup});
  } else if (type == "Replace") {
    SW_ASSIGN(Pattern pattern, Pattern::parse(at, "pattern"));
    SW_ASSIGN(std::string content, at.string("content"));
    steps_.push_back(Replace{std::move(pattern), std::move(content)});
  } else if (type == "Strip") {
    SW_ASSIGN(std::string content, at.string("content"));
    SW_ASSIGN(const int64_t start, at.integer("start", 0, 1 << 20));
    SW_ASSIGN(const int64_t stop, at.integer("stop", 0, 1 << 20));
    if (stop != 0) return unsupported(at.wrong("stop", "0 (text is decoded as it streams)").message);
    if (content.empty()) return at.wrong("content", "a character");
    steps_.push_back(StripLeft{std::move(content), start, !fused});
  } else if (type == "Metaspace") {
    SW_ASSIGN(std::string replacement, at.string("replacement"));
    SW_ASSIGN(const auto scheme, at.optional_string("prepend_scheme"));
    SW_ASSIGN(const bool legacy, at.boolean("add_prefix_space", true));
    steps_.push_back(Metaspace{std::move(replacement), scheme ? *scheme != "never" : legacy});
  } else {
    return unsupported(at.wrong("type",
                                "a decoder of ByteLevel, WordPiece, Replace, ByteFallback, Fuse, Strip, Metaspace, "
                                "Sequence")
                           .message);
  }
  return {};
}

std::string TokenDecoder::decode(std::string_view token, bool first) const {
  std::string out(token);
  for (const Step& step : steps_) {
    std::visit([&](const auto& one) { run(one, first, out); }, step);
  }
  return out;
}

void TokenDecoder::run(const WordPiece& step, bool first, std::string& token) {
  if (!first) {
    if (token.starts_with(step.prefix)) {
      token.erase(0, step.prefix.size());
    } else {
      token.insert(0, 1, ' ');
    }
  }
  if (!step.cleanup) return;
  static const std::pair<const char*, const char*> kCleanups[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kCleanups) Pattern::literal(from).replace_all(token, to);
}

void TokenDecoder::run(const Replace& step, bool, std::string& token) { step.pattern.replace_all(token, step.content); }

void TokenDecoder::run(const ByteFallback&, bool, std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  if (high >= 0 && low >= 0) token.assign(1, char(high * 16 + low));
}

void TokenDecoder::run(const StripLeft& step, bool first, std::string& token) {
  if (!first && !step.each_token) return;
  for (int64_t i = 0; i < step.count && token.starts_with(step.content); ++i) token.erase(0, step.content.size());
}

void TokenDecoder::run(const Metaspace& step, bool first, std::string& token) {
  Pattern::literal(step.replacement).replace_all(token, first && step.drop_first ? "" : " ");
}

void TokenDecoder::run(const JoinBySpace&, bool first, std::string& token) {
  if (!first) token.insert(0, 1, ' ');
}

}  // namespace spillway::text
