// Reads a YAML file of nested maps into flat entries with their places. The subset is deliberate: maps, scalars,
// lists of scalars, and lists of maps where the table of options has one. Anchors, aliases, tags and several documents
// are refused, so a file can be no larger than it looks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spillway::config {

struct YamlScalar {
  std::string text;
  bool quoted = false;  // "8000" is text, 8000 a number
  int line = 1;
  int column = 1;
};

struct YamlEntry {
  enum class Kind { kScalar, kList, kMap } kind = Kind::kScalar;
  std::string key;                // "network.port"
  std::vector<YamlScalar> items;  // one of a scalar, all of a list, none of a map
  int line = 1;                   // of the key
  int column = 1;
};

// Errors begin with "LINE:COLUMN: ".
Result<std::vector<YamlEntry>> parse_yaml(std::string_view text);

}  // namespace spillway::config
