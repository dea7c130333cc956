#include "config/render.h"

#include <fmt/format.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace spillway::config {
namespace {

std::string section_of(const Option& option) {
  const std::string_view key = option.key;
  return std::string(key.substr(0, key.find('.')));
}

std::string name_of(const Option& option) {
  const std::string_view key = option.key;
  return std::string(key.substr(key.find('.') + 1));
}

std::string describe_origin(const Origin& origin) { return origin.where.empty() ? "default" : origin.where; }

// How many secrets a value holds, a text being one or none.
size_t secrets_in(const Value& value) {
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) return list->size();
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr || !text->empty();
}

// In a table cell, bars and line ends would end the cell.
std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.replace(at, 1, "\\|");
  return text;
}

constexpr const char* kIntroduction = R"(# Configuration

Every option is a key of the YAML file, a flag and an environment variable. Later sources win: defaults, then the file
(`--config FILE` or `SPILLWAY_CONFIG`), then the environment, then flags. Unknown keys and wrong types are refused with
their place. `spillway config print` shows the resolved values and where each came from; `spillway config check FILE`
checks a file.

Durations are written `250ms`, `30s`, `5m`, `1h`; a bare number is seconds. Sizes are written `512MiB`, `2GB`; a bare
number is bytes. In flags and the environment, commas separate the items of a list. A boolean is set by its flag alone
and cleared by `--no-FLAG`. On SIGHUP the file is read again: options marked hot take effect, and so does another list of
`models:` (new ones are loaded, changed ones anew, the rest unloaded, while requests go on); the others need a restart.

This page is written by `spillway config docs` from the table in `src/config/options.h`.
)";

}  // namespace

bool is_hidden(const Option& option, const Value& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (option.secret || text == nullptr) return option.secret;
  const size_t host = text->find("://");
  return host != std::string::npos && text->find('@', host) != std::string::npos;
}

std::string print_yaml(const Config& config) {
  std::string out, section;
  for (size_t i = 0; i < kOptionCount; ++i) {
    const Option& option = kOptions[i];
    if (section_of(option) != section) {
      section = section_of(option);
      out += section + ":\n";
    }
    const std::string origin = describe_origin(config.origin(i));
    if (is_hidden(option, config.value(i))) {
      out += fmt::format("  # {}: {} not shown  # {}\n", name_of(option), secrets_in(config.value(i)), origin);
    } else {
      const std::string line = fmt::format("  {}: {}", name_of(option), format_yaml(option, config.value(i)));
      out += fmt::format("{:<44}  # {}\n", line, origin);
    }
  }
  return out;
}

std::string print_json(const Config& config) {
  boost::json::array rows;
  for (size_t i = 0; i < kOptionCount; ++i) {
    const Option& option = kOptions[i];
    std::string value;
    if (is_hidden(option, config.value(i))) {
      value = fmt::format("({} not shown)", secrets_in(config.value(i)));
    } else {
      value = format_value(option, config.value(i));
    }
    rows.push_back(boost::json::object{{"key", option.key},
                                       {"value", value},
                                       {"origin", describe_origin(config.origin(i))},
                                       {"help", option.help},
                                       {"hot", option.hot}});
  }
  return boost::json::serialize(rows);
}

std::string print_markdown() {
  std::string out = kIntroduction, section;
  for (const auto& option : kOptions) {
    if (section_of(option) != section) {
      section = section_of(option);
      out += fmt::format("\n## {}\n\n| key | flag | environment | expected | default | |\n|---|---|---|---|---|---|\n",
                         section);
    }
    const std::string initial = *option.initial ? fmt::format("`{}`", option.initial) : "";
    out += fmt::format("| `{}` | `--{}` | `{}` | {} | {} | {}{} |\n", option.key, option.flag, environment_name(option),
                       cell(describe_expected(option)), initial, cell(option.help), option.hot ? " Hot." : "");
  }
  return out;
}

std::string flag_help(const Option& option) {
  std::string out = option.help;
  if (*option.choices) out += fmt::format(" ({})", describe_expected(option));
  if (*option.initial) out += fmt::format(" [{}]", option.initial);
  return out + " env " + environment_name(option);
}

}  // namespace spillway::config
