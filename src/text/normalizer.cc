#include "text/normalizer.h"

#include <fmt/format.h>

#include <vector>

#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

using Owned = std::unique_ptr<const Normalizer>;

// Appends what `edit(out, c)` makes of each character.
template <class Edit>
void rewrite(std::string& text, Edit edit) {
  std::string out;
  out.reserve(text.size());
  for (const char *p = text.data(), *end = p + text.size(); p < end;) edit(out, next_character(p));
  text = std::move(out);
}

class UnicodeForm : public Normalizer {
 public:
  explicit UnicodeForm(NormalForm form) : form_(form) {}
  void apply(std::string& text) const override { text = to_normal_form(text, form_); }

 private:
  NormalForm form_;
};

class Lowercase : public Normalizer {
 public:
  void apply(std::string& text) const override { rewrite(text, append_lowercase); }
};

class StripAccents : public Normalizer {
 public:
  void apply(std::string& text) const override {
    rewrite(text, [](std::string& out, char32_t c) {
      if (!is_mark(c)) append_utf8(out, c);
    });
  }
};

class Bert : public Normalizer {
 public:
  Bert(bool clean, bool cjk, bool accents, bool lower) : clean_(clean), cjk_(cjk), accents_(accents), lower_(lower) {}

  void apply(std::string& text) const override {
    if (clean_) rewrite(text, append_clean);
    if (cjk_) rewrite(text, append_apart);
    if (accents_) {
      text = to_normal_form(text, NormalForm::kNfd);
      rewrite(text, [](std::string& out, char32_t c) {
        if (!is_nonspacing_mark(c)) append_utf8(out, c);
      });
    }
    if (lower_) rewrite(text, append_lowercase);
  }

 private:
  static void append_clean(std::string& out, char32_t c) {
    if (is_whitespace(c)) {
      if (c == '\v' || c == '\f' || c == 0x85) return;  // control characters first, white space second
      out.push_back(' ');
    } else if (c != 0 && c != 0xFFFD && !is_control_or_format(c)) {
      append_utf8(out, c);
    }
  }
  static void append_apart(std::string& out, char32_t c) {
    if (!is_cjk_ideograph(c)) return append_utf8(out, c);
    out.push_back(' ');
    append_utf8(out, c);
    out.push_back(' ');
  }

  bool clean_, cjk_, accents_, lower_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(std::string& text) const override { pattern_.replace_all(text, content_); }

 private:
  Pattern pattern_;
  std::string content_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}

  void apply(std::string& text) const override {
    size_t begin = 0, end = 0;  // bounds of what stays
    bool seen = false;
    const char* const start = text.data();
    for (const char *p = start, *stop = p + text.size(); p < stop;) {
      const char* const at = p;
      if (is_whitespace(next_character(p))) continue;
      if (!seen) begin = size_t(at - start);
      seen = true;
      end = size_t(p - start);
    }
    if (!seen) {
      if (left_ || right_) text.clear();
      return;
    }
    if (right_) text.resize(end);
    if (left_) text.erase(0, begin);
  }

 private:
  bool left_, right_;
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<Owned> steps) : steps_(std::move(steps)) {}
  void apply(std::string& text) const override {
    for (const Owned& step : steps_) step->apply(text);
  }

 private:
  std::vector<Owned> steps_;
};

Result<Owned> parse_bert(const JsonAt& at) {
  SW_ASSIGN(const bool clean, at.boolean("clean_text", true));
  SW_ASSIGN(const bool cjk, at.boolean("handle_chinese_chars", true));
  SW_ASSIGN(const bool lower, at.boolean("lowercase", true));
  SW_ASSIGN(const bool accents, at.boolean("strip_accents", lower));
  return Owned(std::make_unique<Bert>(clean, cjk, accents, lower));
}

Result<Owned> parse_sequence(const JsonAt& at) {
  SW_ASSIGN(const std::vector<JsonAt> children, at.children("normalizers"));
  std::vector<Owned> steps;
  for (const JsonAt& child : children) {
    SW_ASSIGN(Owned step, Normalizer::parse(child));
    steps.push_back(std::move(step));
  }
  return Owned(std::make_unique<Sequence>(std::move(steps)));
}

}  // namespace

Result<Owned> Normalizer::parse(const JsonAt& at) {
  SW_ASSIGN(const std::string type, at.string("type"));
  if (type == "NFC") return Owned(std::make_unique<UnicodeForm>(NormalForm::kNfc));
  if (type == "NFD") return Owned(std::make_unique<UnicodeForm>(NormalForm::kNfd));
  if (type == "NFKC") return Owned(std::make_unique<UnicodeForm>(NormalForm::kNfkc));
  if (type == "NFKD") return Owned(std::make_unique<UnicodeForm>(NormalForm::kNfkd));
  if (type == "Lowercase") return Owned(std::make_unique<Lowercase>());
  if (type == "StripAccents") return Owned(std::make_unique<StripAccents>());
  if (type == "BertNormalizer") return parse_bert(at);
  if (type == "Sequence") return parse_sequence(at);
  if (type == "Prepend") {
    SW_ASSIGN(std::string prefix, at.string("prepend"));
    return Owned(std::make_unique<Prepend>(std::move(prefix)));
  }
  if (type == "Replace") {
    SW_ASSIGN(Pattern pattern, Pattern::parse(at, "pattern"));
    SW_ASSIGN(std::string content, at.string("content"));
    return Owned(std::make_unique<Replace>(std::move(pattern), std::move(content)));
  }
  if (type == "Strip") {
    SW_ASSIGN(const bool left, at.boolean("strip_left", true));
    SW_ASSIGN(const bool right, at.boolean("strip_right", true));
    return Owned(std::make_unique<Strip>(left, right));
  }
  return unsupported(at.wrong("type",
                              "a normalizer of NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Prepend, "
                              "Replace, Strip, Sequence (Precompiled character maps are not supported)")
                         .message);
}

}  // namespace spillway::text
