#include "metrics/text_format.h"

#include <charconv>
#include <cmath>
#include <utility>

namespace spillway::metrics {
namespace {

constexpr std::string_view kTotal = "_total";

void append_escaped(std::string& out, std::string_view text, bool quotes) {
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

void append_labels(std::string& out, const std::vector<std::string>& names, const std::vector<std::string>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    out.append(names[i]).append("=\"");
    append_escaped(out, values[i], true);
    out += '"';
  }
}

// Writes the samples of one metric.
class SampleWriter {
 public:
  SampleWriter(std::string& out, const Description& description, TextDialect dialect)
      : out_(out), description_(description), open_metrics_(dialect == TextDialect::kOpenMetrics) {
    for (const double bound : description.bounds) bounds_.push_back(format_bound(bound));
    bounds_.push_back("+Inf");
  }

  void header() {
    std::string_view family = description_.name;
    if (open_metrics_ && family.ends_with(kTotal)) family.remove_suffix(kTotal.size());
    out_.append("# HELP ").append(family).append(" ");
    append_escaped(out_, description_.help, open_metrics_);
    out_.append("\n# TYPE ").append(family).append(" ").append(name_of(description_.kind)).append("\n");
    // OpenMetrics wants the unit to be the name's last part.
    if (open_metrics_ && !description_.unit.empty() && family.ends_with("_" + description_.unit)) {
      out_.append("# UNIT ").append(family).append(" ").append(description_.unit).append("\n");
    }
  }

  void series(const Reading& reading) {
    labels_.clear();
    append_labels(labels_, description_.labels, reading.label_values);
    if (reading.distribution != nullptr) {
      distribution(*reading.distribution);
    } else {
      sample("", "", reading.value);
    }
  }

 private:
  // OpenMetrics writes bounds as floats, so that a bound has one spelling only.
  std::string format_bound(double bound) const {
    std::string text = format_number(bound);
    if (open_metrics_ && text.find_first_of(".eIN") == std::string::npos) text += ".0";
    return text;
  }

  // The count is the sum of the buckets as read here, so that a line never contradicts another while updates go on.
  void distribution(const Distribution& series) {
    const double sum = series.sum();
    const std::vector<uint64_t> counts = series.counts();
    const std::vector<Exemplar> exemplars = open_metrics_ ? series.exemplars() : std::vector<Exemplar>();
    uint64_t below = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      below += counts[i];
      sample("_bucket", bounds_[i], double(below), exemplars.empty() ? nullptr : &exemplars[i]);
    }
    sample("_sum", "", sum);
    sample("_count", "", double(below));
  }

  void sample(std::string_view suffix, std::string_view bound, double value, const Exemplar* exemplar = nullptr) {
    out_.append(description_.name).append(suffix);
    if (!labels_.empty() || !bound.empty()) {
      out_.append("{").append(labels_);
      if (!bound.empty()) out_.append(labels_.empty() ? "le=\"" : ",le=\"").append(bound).append("\"");
      out_ += '}';
    }
    out_ += ' ';
    append_number(out_, value);
    if (exemplar != nullptr && !exemplar->trace_id.empty()) {
      out_.append(" # {trace_id=\"").append(exemplar->trace_id).append("\"} ");
      append_number(out_, exemplar->value);
      out_ += ' ';
      append_number(out_, exemplar->unix_s);
    }
    out_ += '\n';
  }

  std::string& out_;
  const Description& description_;
  const bool open_metrics_;
  std::vector<std::string> bounds_;
  std::string labels_;
};

}  // namespace

void append_number(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
    return;
  }
  if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
    return;
  }
  char text[40];
  // Whole numbers as such: counters stay readable and exact.
  const bool is_whole = value == std::floor(value) && std::fabs(value) < 1e15;
  const auto end = is_whole ? std::to_chars(text, text + sizeof text, static_cast<long long>(value)).ptr
                            : std::to_chars(text, text + sizeof text, value).ptr;
  out.append(text, end);
}

std::string format_number(double value) {
  std::string text;
  append_number(text, value);
  return text;
}

std::string label_text(const std::vector<std::string>& names, const std::vector<std::string>& values) {
  std::string text;
  append_labels(text, names, values);
  return text;
}

void write_text(std::string& out, const Exported& metric, TextDialect dialect) {
  SampleWriter writer(out, metric.description(), dialect);
  bool told = false;  // what has no series yet is not there
  metric.read([&](const Reading& reading) {
    if (!std::exchange(told, true)) writer.header();
    writer.series(reading);
  });
}

}  // namespace spillway::metrics
