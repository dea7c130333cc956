// ConfigFlags: the table of options as flags of one command, and the configuration they resolve to. Lives as long as
// the command line is parsed and its command runs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "config/config.h"

namespace CLI {
class App;
}

namespace spillway::apps {

class ConfigFlags {
 public:
  // Adds --config and the flags of the sections' options ("model", "hardware", ...) to the command.
  static std::shared_ptr<ConfigFlags> add(CLI::App& command, const std::vector<std::string_view>& sections);

  // Defaults, file, environment, flags; logs the warnings.
  Result<config::Config> resolve() const;

  // As if the flag had been given, unless it was.
  void prefer(std::string_view key, const std::string& value);

 private:
  ConfigFlags() = default;
  std::string file_;
  std::map<size_t, std::string> given_;  // by option
  std::map<size_t, std::string> preferred_;
};

// All sections, for commands that start a server.
const std::vector<std::string_view>& every_section();

}  // namespace spillway::apps
