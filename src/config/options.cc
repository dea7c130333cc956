#include "config/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "config/value.h"

namespace spillway::config {
namespace {

std::string_view last_part(std::string_view key) { return key.substr(key.rfind('.') + 1); }

// Insertions, deletions, substitutions and swaps of neighbours.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

constexpr size_t kNameSizeMax = 100;  // longer text is never a slip of the keyboard

std::string nearest(std::string_view text, const std::vector<std::string>& candidates) {
  if (text.size() > kNameSizeMax) return "";
  std::string best;
  size_t best_distance = std::max<size_t>(2, text.size() / 4) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(text, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace

size_t find_option(std::string_view key) {
  size_t index = 0;
  while (index < kOptionCount && key != kOptions[index].key) ++index;
  return index;
}

bool is_map_list(std::string_view key) {
  return std::find(std::begin(kMapLists), std::end(kMapLists), key) != std::end(kMapLists);
}

bool is_section(std::string_view name) {
  return std::any_of(std::begin(kOptions), std::end(kOptions), [&](const Option& option) {
    const std::string_view key = option.key;
    return key.size() > name.size() && key.starts_with(name) && key[name.size()] == '.';
  });
}

std::string environment_name(const Option& option) {
  std::string name = std::string("SPILLWAY_") + option.key;
  for (char& c : name) c = c == '.' ? '_' : char(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string describe_expected(const Option& option) {
  const auto range = [&](const char* what) {
    const bool upper = option.max < 1e18;
    if (!upper && option.min <= 0) return fmt::format("{} that is not negative", what);
    const std::string low = format_number(option.type, option.min);
    return upper ? fmt::format("{} from {} to {}", what, low, format_number(option.type, option.max))
                 : fmt::format("{} of at least {}", what, low);
  };
  switch (option.type) {
    case Type::kBool:
      return "true or false";
    case Type::kInt:
      return range("an integer");
    case Type::kFloat:
      return range("a number");
    case Type::kDuration:
      return range("a duration such as 500ms, 30s or 5m");
    case Type::kBytes:
      return range("a size in bytes such as 512MiB or 2GB");
    case Type::kStrings:
      return "a list of strings";
    case Type::kInts:
      return range("a list, each an integer");
    case Type::kString:
      break;
  }
  if (!*option.choices) return "a string";
  std::string list = option.choices;
  for (size_t at; (at = list.find('|')) != std::string::npos;) list.replace(at, 1, ", ");
  if (const size_t at = list.find('#'); at != std::string::npos) list.replace(at, 1, "N");
  return "one of " + list;
}

std::string nearest_key(std::string_view text) {
  // The right name in the wrong section is the commonest slip.
  for (const auto& option : kOptions) {
    if (last_part(text) == last_part(option.key)) return option.key;
  }
  std::vector<std::string> candidates;
  for (const auto& option : kOptions) {
    const std::string key = option.key, section = key.substr(0, key.find('.'));
    candidates.push_back(key);
    if (std::find(candidates.begin(), candidates.end(), section) == candidates.end()) candidates.push_back(section);
  }
  return nearest(text, candidates);
}

std::string nearest_environment_name(std::string_view text) {
  std::vector<std::string> candidates;
  for (const auto& option : kOptions) candidates.push_back(environment_name(option));
  return nearest(text, candidates);
}

std::string nearest_flag(std::string_view text) {
  std::vector<std::string> candidates;
  for (const auto& option : kOptions) candidates.emplace_back(option.flag);
  return nearest(text, candidates);
}

}  // namespace spillway::config
