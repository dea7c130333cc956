#include "apps/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "base/log.h"
#include "config/render.h"

namespace spillway::apps {
namespace {

const char* type_name(config::Type type) {
  switch (type) {
    case config::Type::kString:
      return "TEXT";
    case config::Type::kInt:
      return "INT";
    case config::Type::kFloat:
      return "NUMBER";
    case config::Type::kBool:
      return "";
    case config::Type::kDuration:
      return "TIME";
    case config::Type::kBytes:
      return "SIZE";
    case config::Type::kStrings:
    case config::Type::kInts:
      return "LIST";
  }
  return "";
}

}  // namespace

std::shared_ptr<ConfigFlags> ConfigFlags::add(CLI::App& command, const std::vector<std::string_view>& sections) {
  std::shared_ptr<ConfigFlags> flags(new ConfigFlags);
  command
      .add_option_function<std::string>(
          "--config", [flags](const std::string& file) { flags->file_ = file; },
          "YAML file of options env SPILLWAY_CONFIG")
      ->type_name("FILE");
  for (size_t i = 0; i < config::kOptionCount; ++i) {
    const config::Option& option = config::kOptions[i];
    const std::string_view key = option.key, section = key.substr(0, key.find('.'));
    if (std::find(sections.begin(), sections.end(), section) == sections.end()) continue;
    const std::string flag = option.flag, help = config::flag_help(option), group = "Options: " + std::string(section);
    if (option.type == config::Type::kBool) {
      command
          .add_flag_function(
              "--" + flag + ",!--no-" + flag,
              [flags, i](int64_t count) { flags->given_[i] = count > 0 ? "true" : "false"; }, help)
          ->group(group);
    } else {
      command
          .add_option_function<std::string>(
              "--" + flag, [flags, i](const std::string& text) { flags->given_[i] = text; }, help)
          ->type_name(type_name(option.type))
          ->group(group);
    }
  }
  return flags;
}

Result<config::Config> ConfigFlags::resolve() const {
  std::string file = file_;
  if (const char* named = std::getenv("SPILLWAY_CONFIG"); file.empty() && named) file = named;
  SW_ASSIGN(config::Config config, config::resolve(file, config::process_environment()));
  for (const auto& [option, text] : preferred_) {
    if (!given_.contains(option)) SW_TRY(config.set_flag(option, text));
  }
  for (const auto& [option, text] : given_) SW_TRY(config.set_flag(option, text));
  SW_TRY(configure_log(config.text("log.level"), config.text("log.format")));
  for (const auto& warning : config.warnings()) SW_WARN("{}", warning);
  return config;
}

void ConfigFlags::prefer(std::string_view key, const std::string& value) {
  const size_t index = config::find_option(key);
  SW_CHECK(index < config::kOptionCount, "prefer() of an option that is not in the table");
  preferred_[index] = value;
}

const std::vector<std::string_view>& every_section() {
  static const std::vector<std::string_view> sections = [] {
    std::vector<std::string_view> all;
    for (const config::Option& option : config::kOptions) {
      const std::string_view key = option.key, section = key.substr(0, key.find('.'));
      if (all.empty() || all.back() != section) all.push_back(section);
    }
    return all;
  }();
  return sections;
}

}  // namespace spillway::apps
