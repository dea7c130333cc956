// Unicode as the tokenizer needs it: UTF-8 scanning and repair, character classes, normal forms. Pure functions; any
// thread. Everything but repair_utf8, utf8_sequence and is_valid_utf8 expects valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway::text {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// The character that starts at text[0]: > 0, its length; 0, the text ends within a character that is valid so far; < 0,
// minus the length of the longest piece that no valid character starts with (each such piece becomes one U+FFFD).
int utf8_sequence(std::string_view text);

bool is_ascii(std::string_view text);
bool is_valid_utf8(std::string_view text);
std::string repair_utf8(std::string_view text);  // invalid pieces become U+FFFD

void append_utf8(std::string& out, char32_t c);

// Reads the character at p and moves p behind it. p < end, valid UTF-8.
inline char32_t next_character(const char*& p) {
  const auto lead = uint8_t(*p++);
  if (lead < 0x80) return lead;
  const auto tail = [&p] { return char32_t(uint8_t(*p++) & 0x3F); };
  if (lead < 0xE0) return char32_t(lead & 0x1F) << 6 | tail();
  if (lead < 0xF0) {
    const char32_t high = char32_t(lead & 0x0F) << 12 | tail() << 6;
    return high | tail();
  }
  char32_t high = char32_t(lead & 0x07) << 18 | tail() << 12;
  high |= tail() << 6;
  return high | tail();
}

inline int utf8_length(char lead) {
  const auto byte = uint8_t(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

bool is_whitespace(char32_t c);         // the White_Space property
bool is_punctuation(char32_t c);        // ASCII punctuation or category P
bool is_numeric(char32_t c);            // category N
bool is_mark(char32_t c);               // category M
bool is_nonspacing_mark(char32_t c);    // category Mn
bool is_word(char32_t c);               // letters, marks, decimal numbers, connectors, joiners
bool is_control_or_format(char32_t c);  // categories Cc, Cf, Co
bool is_cjk_ideograph(char32_t c);      // the blocks that BERT sets apart

void append_lowercase(std::string& out, char32_t c);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string to_normal_form(std::string_view text, NormalForm form);

}  // namespace spillway::text
