// Writes the table and its values for people: `config print`, `config docs`.
#pragma once

#include <string>

#include "config/config.h"

namespace spillway::config {

// Whether a value is never printed: a secret, or an address with a password in it.
bool is_hidden(const Option& option, const Value& value);

// YAML that loads back to the same values, each with its origin as a comment. Hidden ones are counted, not shown.
std::string print_yaml(const Config& config);

// [{"key", "value", "origin", "help", "hot"}] for programs; secrets likewise.
std::string print_json(const Config& config);

// docs/configuration.md.
std::string print_markdown();

// Help of one option for --help: its text, default and environment variable.
std::string flag_help(const Option& option);

}  // namespace spillway::config
