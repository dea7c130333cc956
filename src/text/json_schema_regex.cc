#include <fmt/format.h>

#include <algorithm>

#include "text/json_schema.h"
#include "text/unicode.h"

namespace spillway::text {

namespace {

constexpr int kRepeatMax = 1000;
constexpr int kWeightMax = 2000;  // a product: states of the automaton grow with it
constexpr int kDepthMax = 32;

// The characters that a piece of the expression stands for: some of ASCII, and all or none of the others.
struct Characters {
  ByteSet ascii;
  bool beyond = false;

  void invert() {
    for (size_t c = 0; c < 128; ++c) ascii.flip(c);
    beyond = !beyond;
  }
};

ByteSet ascii_range(int first, int last) {
  ByteSet set;
  for (int c = first; c <= last; ++c) set.set(size_t(c));
  return set;
}

class PatternCompiler {
 public:
  PatternCompiler(std::string_view pattern, const std::string& path, JsonRules& json)
      : pattern_(pattern), path_(path), json_(json), rules_(json.rules()) {}

  Result<Element> run() {
    if (!is_valid_utf8(pattern_)) return fail("valid UTF-8");
    std::vector<Sequence> branches;
    do {  // each branch has its own anchors
      const bool anchored = take('^');
      open_end_ = true;
      SW_ASSIGN(const Element body, sequence(0));
      Sequence out;
      if (!anchored) out.push_back(any_text());
      out.push_back(body);
      if (open_end_) out.push_back(any_text());
      branches.push_back(std::move(out));
    } while (take('|'));
    if (at_ < pattern_.size()) return fail("the end");
    return rules_.one_of(std::move(branches));
  }

 private:
  Error fail(std::string_view expected) const {
    return unsupported(
        fmt::format("expected {} at byte {} of {}, found \"{:.40}\"", expected, at_, path_, pattern_.substr(at_)));
  }
  char peek() const { return at_ < pattern_.size() ? pattern_[at_] : '\0'; }
  bool take(char c) {
    if (at_ >= pattern_.size() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }
  Element any_text() { return rules_.repeat(json_.character(), 0, -1); }

  Result<Element> alternatives(int depth) {
    std::vector<Sequence> out;
    do {
      SW_ASSIGN(const Element branch, sequence(depth));
      out.push_back({branch});
    } while (take('|'));
    return rules_.one_of(std::move(out));
  }

  Result<Element> sequence(int depth) {
    if (depth > kDepthMax) return fail("groups nested less deep");
    Sequence out;
    while (at_ < pattern_.size() && peek() != '|' && peek() != ')') {
      if (depth == 0 && peek() == '$') {
        ++at_;
        if (at_ < pattern_.size() && peek() != '|') return fail("the end behind $");
        open_end_ = false;
        break;
      }
      const int outer = weight_;
      weight_ = 1;
      SW_ASSIGN(const Element one, atom(depth));
      SW_ASSIGN(const Element repeated, quantified(one));
      weight_ = std::max(outer, weight_);
      if (rules_.too_large()) return fail("a smaller pattern");
      out.push_back(repeated);
    }
    return rules_.concat(std::move(out));
  }

  Result<Element> quantified(Element one) {
    int least = 1, most = 1;
    if (take('*')) {
      least = 0, most = -1;
    } else if (take('+')) {
      most = -1;
    } else if (take('?')) {
      least = 0;
    } else if (take('{')) {
      SW_ASSIGN(least, count());
      most = least;
      if (take(',')) {
        most = -1;
        if (peek() != '}') {
          SW_ASSIGN(most, count());
        }
      }
      if (!take('}') || (most >= 0 && most < least)) return fail("{n}, {n,} or {n,m}");
    } else {
      return one;
    }
    take('?');  // lazy or not, the language is the same
    if (std::string_view("*+?{").find(peek()) != std::string_view::npos && peek() != '\0')
      return fail("one repetition");
    if (most > 1 && rules_.may_be_empty(one)) return fail("a counted repetition of what is not empty before");
    weight_ *= std::max({1, least, most});
    if (weight_ > kWeightMax) return fail(fmt::format("counts within counts of at most {} together", kWeightMax));
    return rules_.repeat(one, least, most);
  }

  Result<int> count() {
    int value = 0;
    const size_t begin = at_;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > kRepeatMax) return fail(fmt::format("a count of at most {}", kRepeatMax));
    }
    if (at_ == begin) return fail("a count");
    return value;
  }

  Result<Element> atom(int depth) {
    if (take('(')) {
      if (take('?') && !take(':')) return fail("a plain or (?: group (look-around and names are not supported)");
      SW_ASSIGN(const Element group, alternatives(depth + 1));
      if (!take(')')) return fail("')'");
      return group;
    }
    if (take('[')) return bracket();
    if (take('.')) {
      Characters set;
      set.ascii.set('\n').set('\r');
      set.invert();
      return written(set);
    }
    const char c = peek();
    if (std::string_view("*+?{}^$]").find(c) != std::string_view::npos) return fail("a character");
    Characters set;
    SW_ASSIGN(const int named, named_character());
    if (named >= 0x80) return utf8_between(named, named);
    if (named >= 0) {
      set.ascii.set(size_t(named));
      return written(set);
    }
    if (c == '\\') {
      SW_TRY(escape(set, nullptr));
      return written(set);
    }
    const size_t length = size_t(utf8_length(c));
    at_ += length;
    if (length > 1) return rules_.literal(pattern_.substr(at_ - length, length));
    set.ascii.set(uint8_t(c));
    return written(set);
  }

  // single: set to the character when the escape stands for one.
  Status escape(Characters& set, int* single) {
    ++at_;
    const char c = peek();
    if (c == 'S' && single) return fail("\\S outside a class");
    ByteSet word = ascii_range('0', '9') | ascii_range('a', 'z') | ascii_range('A', 'Z') | ascii_range('_', '_');
    ByteSet space = ascii_range(9, 13) | ascii_range(' ', ' ');
    Characters add;
    switch (c) {
      case 'd':
      case 'D':
        add.ascii = ascii_range('0', '9');
        break;
      case 'w':
      case 'W':
        add.ascii = word;
        break;
      case 's':
      case 'S':
        add.ascii = space;
        break;
      case 'n':
        add.ascii.set('\n');
        break;
      case 'r':
        add.ascii.set('\r');
        break;
      case 't':
        add.ascii.set('\t');
        break;
      case 'f':
        add.ascii.set('\f');
        break;
      case 'v':
        add.ascii.set('\v');
        break;
      default:
        if (c == '\0' || uint8_t(c) >= 0x80 || word.test(uint8_t(c)))
          return fail("an escape of d D w W s S n r t f v x u or punctuation");
        add.ascii.set(uint8_t(c));
    }
    ++at_;
    if (c == 'D' || c == 'W' || c == 'S') add.invert();
    if (c == 'S') add.beyond = false;  // some white space lies beyond ASCII: narrower is safe
    if (single) {
      *single = -1;
      if (!add.beyond && add.ascii.count() == 1) {
        for (int i = 0; i < 128; ++i) {
          if (add.ascii.test(size_t(i))) *single = i;
        }
      }
    }
    set.ascii |= add.ascii;
    set.beyond |= add.beyond;
    return {};
  }

  // \xHH and \uHHHH, two of them for a character beyond 16 bits; -1 where there is none.
  Result<int> named_character() {
    const char kind = at_ + 1 < pattern_.size() && peek() == '\\' ? pattern_[at_ + 1] : '\0';
    if (kind != 'x' && kind != 'u') return -1;
    at_ += 2;
    SW_ASSIGN(int code, hexadecimal(kind == 'x' ? 2 : 4));
    if (code >= 0xD800 && code < 0xDC00 && pattern_.substr(at_).starts_with("\\u")) {
      at_ += 2;
      SW_ASSIGN(const int low, hexadecimal(4));
      if (low < 0xDC00 || low > 0xDFFF) return fail("the second half of a surrogate pair before this");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code >= 0xD800 && code < 0xE000) return fail("a character, not half of one, before this");
    return code;
  }

  Result<int> hexadecimal(int digits) {
    int code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const char c = peek();
      const int value = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
      if (value < 0) return fail(fmt::format("{} hexadecimal digits", digits));
      code = code * 16 + value;
    }
    return code;
  }

  // One character inside of brackets; a class such as \d goes into set and is -1.
  Result<int> bracket_item(Characters& set) {
    if (at_ >= pattern_.size()) return fail("']'");
    SW_ASSIGN(const int named, named_character());
    if (named >= 0) return named;
    if (peek() == '\\') {
      int single = -1;
      SW_TRY(escape(set, &single));
      return single;
    }
    const char* next = pattern_.data() + at_;
    const char32_t c = next_character(next);
    at_ = size_t(next - pattern_.data());
    return int(c);
  }

  Result<Element> bracket() {
    Characters set;
    std::vector<Sequence> beyond;  // characters beyond ASCII by name
    const bool negated = take('^');
    while (!take(']')) {
      SW_ASSIGN(const int first, bracket_item(set));
      if (first < 0) continue;
      int last = first;
      if (peek() == '-' && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']') {
        ++at_;
        SW_ASSIGN(last, bracket_item(set));
        if (last < first) return fail("an ascending range before this");
      }
      set.ascii |= ascii_range(first, std::min(last, 0x7F));
      if (last < 0x80) continue;
      if (negated) return fail("ASCII characters in a negated class before this");
      beyond.push_back({utf8_between(std::max(first, 0x80), last)});
    }
    if (negated) set.invert();
    if (set.ascii.any() || set.beyond) {
      SW_ASSIGN(const Element plain, written(set));
      beyond.push_back({plain});
    }
    if (beyond.empty()) return fail("a class with a character in it");
    return rules_.one_of(std::move(beyond));
  }

  // Characters beyond ASCII from first to last as UTF-8 writes them, surrogates left out.
  Element utf8_between(int first, int last) {
    constexpr std::pair<int, int> kLengths[] = {{0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    std::vector<Sequence> out;
    for (const auto& [least, most] : kLengths) {
      const int from = std::max(first, least), to = std::min(last, most);
      if (from > to) continue;
      std::string low, high;
      append_utf8(low, char32_t(from));
      append_utf8(high, char32_t(to));
      out.push_back({bytes_between(low, high)});
    }
    return rules_.one_of(std::move(out));
  }

  Element bytes_between(std::string_view low, std::string_view high) {
    if (low.empty()) return rules_.one_of({{}});
    if (low[0] == high[0])
      return rules_.concat({rules_.literal(low.substr(0, 1)), bytes_between(low.substr(1), high.substr(1))});
    const std::string least(low.size() - 1, '\x80'), most(low.size() - 1, '\xBF');
    int first = uint8_t(low[0]), last = uint8_t(high[0]);
    std::vector<Sequence> out;
    if (low.substr(1) != least) {
      out.push_back({rules_.literal(low.substr(0, 1)), bytes_between(low.substr(1), most)});
      ++first;
    }
    if (high.substr(1) != most) {
      out.push_back({rules_.literal(high.substr(0, 1)), bytes_between(least, high.substr(1))});
      --last;
    }
    if (first <= last) {
      const int rest = int(least.size());
      out.push_back({rules_.range(first, last), rules_.repeat(rules_.range(0x80, 0xBF), rest, rest)});
    }
    return rules_.one_of(std::move(out));
  }

  // The characters as a JSON string writes them.
  Result<Element> written(const Characters& set) {
    ByteSet plain = set.ascii;
    std::vector<Sequence> out;
    constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
    std::string names;
    for (size_t i = 0; i < kEscaped.size(); ++i) {
      if (set.ascii.test(uint8_t(kEscaped[i]))) names += kNames[i];
    }
    for (size_t c = 0; c < 0x20; ++c) plain.reset(c);
    plain.reset('"').reset('\\');
    if (plain.any()) out.push_back({rules_.bytes(plain)});
    if (!names.empty()) out.push_back({rules_.bytes("\\"), rules_.bytes(names)});
    if (set.beyond) out.push_back({json_.plain_tail()});
    if (out.empty()) return fail("characters that JSON can write");
    return rules_.one_of(std::move(out));
  }

  std::string_view pattern_;
  const std::string& path_;
  JsonRules& json_;
  GrammarRules& rules_;
  size_t at_ = 0;
  bool open_end_ = true;
  int weight_ = 1;  // the largest product of nested counts in the group so far
};

}  // namespace

Result<Element> compile_string_pattern(std::string_view pattern, const std::string& path, JsonRules& json) {
  return PatternCompiler(pattern, path, json).run();
}

}  // namespace spillway::text
