#include "text/pre_tokenizer.h"

#include <fmt/format.h>

#include "text/pre_tokenizer_split.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_pattern.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

using Owned = std::unique_ptr<const PreTokenizer>;

constexpr std::string_view kByteLevelRegex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    std::vector<std::string_view> out;
    out.reserve(pieces.items.size() * 2);
    std::vector<SplitRange> ranges;
    for (const std::string_view piece : pieces.items) {
      const auto find = [&](size_t from, Regex::Match& match) { return pattern_.find(piece, from, match); };
      if (behavior_ == SplitBehavior::kIsolated) {
        size_t done = 0;
        for (Regex::Match match; done < piece.size() && find(done, match); done = match.end) {
          if (match.begin > done) out.push_back(piece.substr(done, match.begin - done));
          out.push_back(piece.substr(match.begin, match.end - match.begin));
        }
        if (done < piece.size()) out.push_back(piece.substr(done));
        continue;
      }
      cover(piece.size(), find, ranges);
      if (invert_) {
        for (SplitRange& range : ranges) range.match = !range.match;
      }
      append_pieces(piece, ranges, behavior_, out);
    }
    pieces.items = std::move(out);
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at the characters of a class.
template <bool (*kClass)(char32_t)>
class SplitClass : public PreTokenizer {
 public:
  explicit SplitClass(SplitBehavior behavior) : behavior_(behavior) {}

  void apply(Pieces& pieces) const override {
    std::vector<std::string_view> out;
    std::vector<SplitRange> ranges;
    for (const std::string_view piece : pieces.items) {
      const char* const start = piece.data();
      const auto find = [&](size_t from, Regex::Match& match) {
        for (const char *p = start + from, *end = start + piece.size(); p < end;) {
          const char* const at = p;
          if (!kClass(next_character(p))) continue;
          match = {size_t(at - start), size_t(p - start)};
          return true;
        }
        return false;
      };
      cover(piece.size(), find, ranges);
      append_pieces(piece, ranges, behavior_, out);
    }
    pieces.items = std::move(out);
  }

 private:
  SplitBehavior behavior_;
};

class PrefixSpace : public PreTokenizer {
 public:
  void apply(Pieces& pieces) const override {
    for (std::string_view& piece : pieces.items) {
      if (piece.front() != ' ') piece = pieces.storage.emplace_back(" " + std::string(piece));
    }
  }
};

class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };

  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), space_(Pattern::literal(" ")), prepend_(prepend) {
    if (split) split_ = std::make_unique<Split>(Pattern::literal(replacement_), SplitBehavior::kMergedWithNext, false);
  }

  void apply(Pieces& pieces) const override {
    for (size_t i = 0; i < pieces.items.size(); ++i) {
      std::string text(pieces.items[i]);
      space_.replace_all(text, replacement_);
      const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && i == 0 && pieces.at_start);
      if (wanted && !text.starts_with(replacement_)) text.insert(0, replacement_);
      pieces.items[i] = pieces.storage.emplace_back(std::move(text));
    }
    if (split_) split_->apply(pieces);
  }

 private:
  std::string replacement_;
  Pattern space_;
  Prepend prepend_;
  std::unique_ptr<const Split> split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<Owned> steps) : steps_(std::move(steps)) {}
  void apply(Pieces& pieces) const override {
    for (const Owned& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<Owned> steps_;
};

Owned sequence(std::vector<Owned> steps) { return std::make_unique<Sequence>(std::move(steps)); }

Result<Owned> parse_split(const JsonAt& at) {
  SW_ASSIGN(Pattern pattern, Pattern::parse(at, "pattern"));
  SW_ASSIGN(const SplitBehavior behavior, parse_split_behavior(at));
  SW_ASSIGN(const bool invert, at.boolean("invert", false));
  return Owned(std::make_unique<Split>(std::move(pattern), behavior, invert));
}

Result<Owned> parse_byte_level(const JsonAt& at) {
  SW_ASSIGN(const bool prefix, at.boolean("add_prefix_space", true));
  SW_ASSIGN(const bool regex, at.boolean("use_regex", true));
  std::vector<Owned> steps;
  if (prefix) steps.push_back(std::make_unique<PrefixSpace>());
  if (regex) {
    SW_ASSIGN(Pattern pattern, Pattern::regex(kByteLevelRegex));
    steps.push_back(std::make_unique<Split>(std::move(pattern), SplitBehavior::kIsolated, false));
  }
  return sequence(std::move(steps));
}

Result<Owned> parse_metaspace(const JsonAt& at) {
  SW_ASSIGN(std::string replacement, at.string("replacement"));
  SW_ASSIGN(const bool split, at.boolean("split", true));
  SW_ASSIGN(const bool legacy, at.boolean("add_prefix_space", true));
  auto prepend = legacy ? Metaspace::Prepend::kAlways : Metaspace::Prepend::kNever;
  SW_ASSIGN(const auto scheme, at.optional_string("prepend_scheme"));
  if (scheme == "always") {
    prepend = Metaspace::Prepend::kAlways;
  } else if (scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Metaspace::Prepend::kNever;
  } else if (scheme) {
    return at.wrong("prepend_scheme", "always, first or never");
  }
  if (replacement.empty()) return at.wrong("replacement", "a character");
  return Owned(std::make_unique<Metaspace>(std::move(replacement), prepend, split));
}

Result<Owned> parse_sequence(const JsonAt& at, bool& byte_level) {
  SW_ASSIGN(const std::vector<JsonAt> children, at.children("pretokenizers"));
  std::vector<Owned> steps;
  for (const JsonAt& child : children) {
    if (byte_level) return unsupported("a pre-tokenizer after ByteLevel is not supported at " + child.path());
    SW_ASSIGN(Owned step, PreTokenizer::parse(child, byte_level));
    steps.push_back(std::move(step));
  }
  return sequence(std::move(steps));
}

Owned white_space() { return std::make_unique<SplitClass<is_whitespace>>(SplitBehavior::kRemoved); }

Result<Owned> bert() {
  std::vector<Owned> steps;
  steps.push_back(white_space());
  steps.push_back(std::make_unique<SplitClass<is_punctuation>>(SplitBehavior::kIsolated));
  return sequence(std::move(steps));
}

Result<Owned> words() {
  // \w as Unicode has it: PCRE2's takes ½ in and leaves marks out.
  constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D})";
  SW_ASSIGN(Pattern pattern, Pattern::regex(fmt::format("[{}]+|[^{}\\s]+", kWord, kWord)));
  return Owned(std::make_unique<Split>(std::move(pattern), SplitBehavior::kRemoved, true));
}

}  // namespace

Result<Owned> PreTokenizer::parse(const JsonAt& at, bool& byte_level) {
  SW_ASSIGN(const std::string type, at.string("type"));
  if (type == "Split") return parse_split(at);
  if (type == "Sequence") return parse_sequence(at, byte_level);
  if (type == "Metaspace") return parse_metaspace(at);
  if (type == "BertPreTokenizer") return bert();
  if (type == "WhitespaceSplit") return white_space();
  if (type == "Whitespace") return words();
  if (type == "ByteLevel") {
    byte_level = true;
    return parse_byte_level(at);
  }
  if (type == "Digits") {
    SW_ASSIGN(const bool each, at.boolean("individual_digits", false));
    return Owned(
        std::make_unique<SplitClass<is_numeric>>(each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  }
  if (type == "Punctuation") {
    auto behavior = SplitBehavior::kIsolated;
    if (at.find("behavior")) {
      SW_ASSIGN(behavior, parse_split_behavior(at));
    }
    return Owned(std::make_unique<SplitClass<is_punctuation>>(behavior));
  }
  return unsupported(at.wrong("type",
                              "a pre-tokenizer of Split, ByteLevel, BertPreTokenizer, Whitespace, WhitespaceSplit, "
                              "Digits, Punctuation, Metaspace, Sequence")
                         .message);
}

}  // namespace spillway::text
