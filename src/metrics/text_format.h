// Prometheus text format 0.0.4 and OpenMetrics 1.0.0: one metric with all its series. The two differ in the family name
// of counters, the unit, and exemplars, which only OpenMetrics has.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "metrics/metrics.h"

namespace spillway::metrics {

enum class TextDialect { kPrometheus, kOpenMetrics };

// Its HELP, TYPE and samples.
void write_text(std::string& out, const Exported& metric, TextDialect dialect);

// name="value",... with backslash, line feed and the double quote escaped; no braces.
std::string label_text(const std::vector<std::string>& names, const std::vector<std::string>& values);

// The shortest text that reads back as the same double; +Inf, -Inf, NaN.
std::string format_number(double value);
void append_number(std::string& out, double value);

}  // namespace spillway::metrics
