#include "metrics/text_format.h"

#include <charconv>
#include <cmath>

#include "metrics/process.h"
#include "metrics/registry.h"

namespace spillway::metrics {
namespace {

void write_escaped(std::string& out, std::string_view text, bool quotes) {
  for (char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
}

const char* type_name(Kind kind) {
  switch (kind) {
    case Kind::kCounter: return "counter";
    case Kind::kGauge: return "gauge";
    case Kind::kHistogram: return "histogram";
  }
  return "untyped";
}

std::vector<Label> labels_of(const Description& description, const std::vector<std::string>& values) {
  std::vector<Label> labels;
  for (size_t i = 0; i < values.size(); ++i) labels.push_back({description.labels[i], values[i]});
  return labels;
}

void write_series(std::string& out, const Description& description, std::vector<Label> labels, const Value& series) {
  write_sample(out, description.name, "", labels, series.get());
}

// The count is the sum of the buckets as read here, so that a line never contradicts another while updates go on.
void write_series(std::string& out, const Description& description, std::vector<Label> labels,
                  const Distribution& series) {
  const double sum = series.sum();
  const std::vector<uint64_t> counts = series.counts();
  uint64_t below = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    below += counts[i];
    const std::string bound = i < description.bounds.size() ? format_number(description.bounds[i]) : "+Inf";
    labels.push_back({"le", bound});
    write_sample(out, description.name, "_bucket", labels, double(below));
    labels.pop_back();
  }
  write_sample(out, description.name, "_sum", labels, sum);
  write_sample(out, description.name, "_count", labels, double(below));
}

}  // namespace

std::string format_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char text[40];
  // Whole numbers as such: counters stay readable and exact.
  if (value == std::floor(value) && std::fabs(value) < 1e15) {
    const auto whole = std::to_chars(text, text + sizeof text, static_cast<long long>(value));
    return {text, whole.ptr};
  }
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

void write_header(std::string& out, std::string_view name, std::string_view help, Kind kind) {
  out.append("# HELP ").append(name).append(" ");
  write_escaped(out, help, false);
  out.append("\n# TYPE ").append(name).append(" ").append(type_name(kind)).append("\n");
}

void write_sample(std::string& out, std::string_view name, std::string_view suffix, const std::vector<Label>& labels,
                  double value) {
  out.append(name).append(suffix);
  for (size_t i = 0; i < labels.size(); ++i) {
    out.append(i == 0 ? "{" : ",").append(labels[i].name).append("=\"");
    write_escaped(out, labels[i].value, true);
    out += '"';
  }
  if (!labels.empty()) out += '}';
  out.append(" ").append(format_number(value)).append("\n");
}

template <class Series>
void SeriesTable<Series>::write(std::string& out) const {
  write_header(out, description_.name, description_.help, kind_);
  for (const Entry* entry : entries()) {
    write_series(out, description_, labels_of(description_, entry->label_values), *entry->series);
  }
}

template void SeriesTable<Value>::write(std::string&) const;
template void SeriesTable<Distribution>::write(std::string&) const;

std::string prometheus_text() {
  std::string out;
  write_process(out);  // "process_..." sorts before "spillway_..."
  for (const Exported* metric : Registry::instance().sorted()) metric->write(out);
  return out;
}

}  // namespace spillway::metrics
