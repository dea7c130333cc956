#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer_regex.h"

#include <fmt/format.h>
#include <pcre2.h>

namespace spillway::text {

namespace {

constexpr uint32_t kMatchLimit = 5'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 4 * 1024 * 1024;

// One a thread: match memory and the JIT's stack.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);

  Scratch() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack) pcre2_jit_stack_free(stack);
  }
};

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

constexpr std::string_view kSpaceClass = "\\p{Z}\\t-\\r\\x{85}";  // PCRE2's own \\s takes U+180E too
// Alphabetic characters: the circled and squared letters are symbols by category.
constexpr std::string_view kWordClass =
    "\\p{L}\\p{M}\\p{N}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
constexpr std::string_view kHexClass = "0-9a-fA-F";

// Copies the escape at pattern[i] (a backslash); i ends behind it.
Status copy_escape(std::string_view pattern, size_t& i, bool in_class, std::string& out) {
  if (i + 1 >= pattern.size()) return invalid("regex: expected a character after the last backslash, found the end");
  const char c = pattern[i + 1];
  const auto wrap = [&](std::string_view body) { out += in_class ? std::string(body) : fmt::format("[{}]", body); };
  i += 2;
  switch (c) {
    case 'w':
      wrap(kWordClass);
      return {};
    case 's':
      wrap(kSpaceClass);
      return {};
    case 'h':
      wrap(kHexClass);
      return {};
    case 'W':
    case 'S':
    case 'H':
      if (in_class && c == 'S') break;  // PCRE2's own
      if (in_class) return unsupported(fmt::format("regex: \\{} within a class is not supported", c));
      out += fmt::format("[^{}]", c == 'W' ? kWordClass : c == 'S' ? kSpaceClass : kHexClass);
      return {};
    default:
      break;
  }
  out.append(pattern.substr(i - 2, 2));
  return {};
}

// Copies the class at pattern[i] ('['); nested classes are unions, so that a plain one loses its brackets.
Status copy_class(std::string_view pattern, size_t& i, int depth, std::string& out) {
  if (depth > 8) return unsupported("regex: classes nested deeper than 8");
  ++i;
  if (depth == 0) out += '[';
  if (i < pattern.size() && pattern[i] == '^') {
    if (depth > 0) return unsupported("regex: a negated class within a class is not supported");
    out += '^';
    ++i;
  }
  for (bool first = true; i < pattern.size(); first = false) {
    const char c = pattern[i];
    if (c == '\\') {
      SW_TRY(copy_escape(pattern, i, true, out));
    } else if (c == ']' && !first) {
      ++i;
      if (depth == 0) out += ']';
      return {};
    } else if (c == '[' && pattern.substr(i, 2) == "[:") {
      const size_t close = pattern.find(":]", i);
      if (close == std::string_view::npos) return invalid("regex: expected ':]', found the end");
      out.append(pattern.substr(i, close + 2 - i));
      i = close + 2;
    } else if (c == '[') {
      SW_TRY(copy_class(pattern, i, depth + 1, out));
    } else if (c == '&' && pattern.substr(i, 2) == "&&") {
      return unsupported("regex: class intersection (&&) is not supported");
    } else {
      if (c == ']') out += '\\';
      out += c;
      ++i;
    }
  }
  return invalid("regex: expected ']', found the end");
}

}  // namespace

Result<std::string> translate_oniguruma(std::string_view pattern) {
  std::string out;
  out.reserve(pattern.size() + 16);
  for (size_t i = 0; i < pattern.size();) {
    if (pattern[i] == '\\') {
      SW_TRY(copy_escape(pattern, i, false, out));
    } else if (pattern[i] == '[') {
      SW_TRY(copy_class(pattern, i, 0, out));
    } else {
      out += pattern[i++];
    }
  }
  return out;
}

std::string escape_regex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::string_view("\\^$.[]|()?*+{}-#").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Result<Regex> Regex::compile(std::string_view pattern) {
  SW_ASSIGN(const std::string translated, translate_oniguruma(pattern));
  int code = 0;
  PCRE2_SIZE at = 0;
  Regex regex;
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  regex.code_.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), kOptions, &code, &at, nullptr));
  if (!regex.code_) {
    PCRE2_UCHAR message[200];
    pcre2_get_error_message(code, message, sizeof message);
    return invalid(fmt::format("regex: {} at byte {} of {}", reinterpret_cast<const char*>(message), at, translated));
  }
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);  // without a JIT the interpreter gives the same matches
  return regex;
}

bool Regex::find(std::string_view subject, size_t from, Match& match) const {
  Scratch& scratch = thread_scratch();
  const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                             PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (rc < 0) return false;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(scratch.data);
  match = {bounds[0], bounds[1]};
  return match.begin <= match.end;  // \K can turn them round
}

}  // namespace spillway::text
