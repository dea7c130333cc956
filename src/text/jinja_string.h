// Python's str operations on UTF-8 text, for the Jinja interpreter. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::text::jinja {

// The character that starts at `at`: its bytes (an invalid byte is a character of its own).
std::string_view character_at(std::string_view text, size_t at);
std::vector<std::string_view> characters(std::string_view text);
size_t count_characters(std::string_view text);
int32_t code_point(std::string_view character);
void append_utf8(std::string& out, uint32_t code_point);

bool is_space(std::string_view character);  // str.isspace
// chars null: white space. Otherwise the set of characters to take away.
std::string_view strip(std::string_view text, const std::string* chars, bool left, bool right);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);         // str.title: a word starts after anything that has no case
std::string title_filter(std::string_view text);  // Jinja's: a word starts after space, -, (, {, [, <

// limit < 0: all.
std::vector<std::string> split(std::string_view text, const std::string* separator, int64_t limit);
std::vector<std::string> rsplit(std::string_view text, const std::string* separator, int64_t limit);
std::vector<std::string> split_lines(std::string_view text, bool keep_ends);
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t limit);

bool is_printable(std::string_view character);  // as repr sees it
enum class CharacterClass { kAlpha, kDigit, kAlnum, kSpace, kUpper, kLower };
bool all_of_class(std::string_view text, CharacterClass wanted);

}  // namespace spillway::text::jinja
