#include "config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>

#include "config/yaml.h"

namespace spillway::config {
namespace {

std::string shape_name(const YamlScalar& scalar) {
  if (scalar.quoted) return fmt::format("the string \"{:.60}\"", scalar.text);
  switch (shape_of(scalar.text)) {
    case Shape::kNothing:
      return "nothing";
    case Shape::kBool:
      return fmt::format("the boolean {}", scalar.text);
    case Shape::kInt:
      return fmt::format("the integer {}", scalar.text);
    case Shape::kFloat:
      return fmt::format("the number {}", scalar.text);
    case Shape::kText:
      break;
  }
  return fmt::format("the string \"{:.60}\"", scalar.text);
}

// Whether a YAML scalar may stand for the type; the text itself is checked by parse_value.
bool fits(Type type, const YamlScalar& scalar) {
  const Shape shape = scalar.quoted ? Shape::kText : shape_of(scalar.text);
  switch (type) {
    case Type::kString:
    case Type::kStrings:
      return shape == Shape::kText;
    case Type::kBool:
      return shape == Shape::kBool;
    case Type::kInt:
    case Type::kInts:
      return shape == Shape::kInt;
    case Type::kFloat:
      return shape == Shape::kInt || shape == Shape::kFloat;
    case Type::kDuration:
    case Type::kBytes:
      return shape == Shape::kInt || shape == Shape::kFloat || shape == Shape::kText;
  }
  return false;
}

Result<Value> value_of(const Option& option, const YamlEntry& entry) {
  const bool wants_list = option.type == Type::kStrings || option.type == Type::kInts;
  const auto wrong = [&](const std::string& found) {
    return invalid(fmt::format("expected {}, found {}", describe_expected(option), found));
  };
  if (entry.kind == YamlEntry::Kind::kMap) return wrong("a map");
  if (wants_list != (entry.kind == YamlEntry::Kind::kList)) {
    return wrong(wants_list ? shape_name(entry.items[0]) : "a list");
  }
  std::vector<std::string> items;
  for (const auto& item : entry.items) {
    if (!fits(option.type, item)) {
      const bool quote = option.type == Type::kString && !item.quoted && !item.text.empty();
      return wrong(shape_name(item) + (quote ? " (put it in quotes to mean text)" : ""));
    }
    items.push_back(item.text);
  }
  return wants_list ? parse_list(option, items) : parse_value(option, items[0]);
}

constexpr std::string_view kModelItem = "models[";

std::string unknown(const YamlEntry& entry) {
  const std::string near = nearest_key(entry.key);
  const bool section = entry.kind == YamlEntry::Kind::kMap;
  return fmt::format("unknown {} {}{}", section ? "section" : "key", entry.key,
                     near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

Status all_of(const std::vector<std::string>& problems) {
  constexpr size_t kShown = 20;
  if (problems.empty()) return {};
  std::string text =
      fmt::format("{}", fmt::join(problems.begin(), problems.begin() + std::min(problems.size(), kShown), "\n"));
  if (problems.size() > kShown) text += fmt::format("\nand {} more", problems.size() - kShown);
  return invalid(text);
}

}  // namespace

Config::Config() : origins_(kOptionCount) {
  values_.reserve(kOptionCount);
  for (const auto& option : kOptions) {
    auto value = parse_value(option, option.initial);
    SW_CHECK(value.ok(), std::string(option.key) + ": its default is wrong: " + value.error().message);
    values_.push_back(std::move(value).value());
  }
}

Status Config::load_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": expected a readable YAML file, found none");
  std::ostringstream text;  // a stream's iterators would throw where the path is a folder
  if (in.peek() != std::ifstream::traits_type::eof()) text << in.rdbuf();
  if (in.bad()) return not_found(path + ": expected a readable YAML file, found something that cannot be read");
  return load_yaml(text.str(), path);
}

Status Config::load_yaml(std::string_view text, const std::string& name) {
  auto entries = parse_yaml(text);
  if (!entries.ok()) return invalid(name + ":" + entries.error().message);
  std::vector<std::string> problems;
  std::string skipped;  // the section that was refused as a whole, with its dot
  file_ = name;
  for (const auto& entry : *entries) {
    const std::string_view key = entry.key;
    const bool of_list = is_map_list(key.substr(0, key.find('[')));
    if (of_list && (key.find('[') != key.npos || (entry.kind == YamlEntry::Kind::kList && entry.items.empty()))) {
      map_lists_.push_back(entry);
      continue;
    }
    if (!skipped.empty() && entry.key.starts_with(skipped)) continue;
    const auto problem = [&](const std::string& message) {
      problems.push_back(fmt::format("{}:{}:{}: {}", name, entry.line, entry.column, message));
      if (entry.kind == YamlEntry::Kind::kMap) skipped = entry.key + ".";
    };
    const size_t index = find_option(entry.key);
    if (index == kOptionCount) {
      const bool empty =
          entry.kind == YamlEntry::Kind::kScalar && entry.items[0].text.empty() && !entry.items[0].quoted;
      if (!is_section(entry.key)) {
        problem(unknown(entry));
      } else if (entry.kind != YamlEntry::Kind::kMap && !empty) {
        problem(fmt::format("{}: expected a map of options, found {}", entry.key,
                            entry.kind == YamlEntry::Kind::kList ? "a list" : shape_name(entry.items[0])));
      }
      continue;
    }
    auto value = value_of(kOptions[index], entry);
    if (!value.ok()) {
      problem(fmt::format("{}: {}", entry.key, value.error().message));
      continue;
    }
    values_[index] = std::move(value).value();
    origins_[index] = {Origin::Kind::kFile, fmt::format("{}:{}:{}", name, entry.line, entry.column)};
  }
  return all_of(problems);
}

Status Config::load_environment(const std::vector<std::string>& variables) {
  std::vector<std::string> problems;
  for (const auto& variable : variables) {
    if (!variable.starts_with("SPILLWAY_")) continue;
    const size_t equals = variable.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = variable.substr(0, equals);
    size_t index = 0;
    while (index < kOptionCount && environment_name(kOptions[index]) != name) ++index;
    if (index == kOptionCount) {
      // Others may own such names (Kubernetes sets SPILLWAY_SERVICE_HOST), so an unknown one is no error.
      const std::string near = name == "SPILLWAY_CONFIG" ? "" : nearest_environment_name(name);
      if (!near.empty()) warnings_.push_back(fmt::format("environment: {} is not read; did you mean {}?", name, near));
      continue;
    }
    auto value = parse_value(kOptions[index], std::string_view(variable).substr(equals + 1));
    if (!value.ok()) {
      problems.push_back(fmt::format("environment: {}: {}", name, value.error().message));
      continue;
    }
    values_[index] = std::move(value).value();
    origins_[index] = {Origin::Kind::kEnvironment, name};
  }
  return all_of(problems);
}

Status Config::set_flag(size_t option, std::string_view text) {
  SW_CHECK(option < kOptionCount, "set_flag of an option that is not in the table");
  const std::string flag = std::string("--") + kOptions[option].flag;
  auto value = parse_value(kOptions[option], text);
  if (!value.ok()) return std::move(value).error().in(flag);
  values_[option] = std::move(value).value();
  origins_[option] = {Origin::Kind::kFlag, flag};
  return {};
}

// A member of an item of `models`, by its key within the item.
Status Config::set_item(const YamlEntry& entry, std::string_view key) {
  const bool plain = key.find('.') == key.npos;
  const std::string full = plain ? "model." + std::string(key) : std::string(key);
  if (entry.kind == YamlEntry::Kind::kMap) {
    if (plain && is_section(key)) return {};
    return invalid("expected a value or a section of options, found a map");
  }
  const size_t index = find_option(full);
  constexpr std::string_view kOfAModel[] = {"model.", "hardware.", "engine.", "batching."};
  const bool taken =
      std::ranges::any_of(kOfAModel, [&](std::string_view section) { return full.starts_with(section); });
  if (index == kOptionCount || !taken) {
    const std::string near = nearest_key(full);
    return invalid("expected an option of model, hardware, engine or batching" +
                   (near.empty() ? "" : "; did you mean " + near + "?"));
  }
  SW_ASSIGN(values_[index], value_of(kOptions[index], entry));
  origins_[index] = {Origin::Kind::kFile, fmt::format("{}:{}:{}", file_, entry.line, entry.column)};
  return {};
}

bool Config::has_models() const {
  return std::ranges::any_of(map_lists_, [](const YamlEntry& entry) { return entry.key.starts_with(kModelItem); });
}

Result<std::vector<Config>> Config::each_model() const {
  std::vector<Config> all;
  std::vector<std::string> problems;
  for (const YamlEntry& entry : map_lists_) {
    if (!entry.key.starts_with(kModelItem)) continue;
    const size_t close = entry.key.find(']');
    if (close + 1 == entry.key.size()) {
      all.push_back(*this);
      const size_t aliases = Key<Type::kStrings>("model.aliases").index;
      if (origins_[aliases].kind == Origin::Kind::kDefault) all.back().values_[aliases] = std::vector<std::string>();
      continue;
    }
    if (const Status set = all.back().set_item(entry, std::string_view(entry.key).substr(close + 2)); !set.ok()) {
      problems.push_back(
          fmt::format("{}:{}:{}: {}: {}", file_, entry.line, entry.column, entry.key, set.error().message));
    }
  }
  SW_TRY(all_of(problems));
  if (all.empty()) all.push_back(*this);
  return all;
}

std::vector<std::string> process_environment() {
  std::vector<std::string> variables;
  for (char** at = environ; at && *at; ++at) variables.emplace_back(*at);
  return variables;
}

Result<Config> resolve(const std::string& file, const std::vector<std::string>& environment) {
  Config config;
  if (!file.empty()) SW_TRY(config.load_file(file));
  SW_TRY(config.load_environment(environment));
  return config;
}

}  // namespace spillway::config
