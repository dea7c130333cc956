// Prometheus text format 0.0.4: the pieces of a line and their escaping.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::metrics {

// "# HELP" and "# TYPE" lines. Help escapes backslash and line feed.
void write_header(std::string& out, std::string_view name, std::string_view help, Kind kind);

// name{label="value",...} number. Label values escape backslash, line feed and the double quote. extra is one more label.
struct Label {
  std::string_view name;
  std::string_view value;
};
void write_sample(std::string& out, std::string_view name, std::string_view suffix, const std::vector<Label>& labels,
                  double value);

// The shortest text that reads back as the same double; +Inf, -Inf, NaN.
std::string format_number(double value);

}  // namespace spillway::metrics
