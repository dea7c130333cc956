#include "metrics/docs.h"

#include "metrics/registry.h"
#include "metrics/text_format.h"

namespace spillway::metrics {
namespace {

struct Section {
  Layer layer;
  const char* title;
  const char* text;
};

constexpr Section kSections[] = {
    {Layer::kHardware, "Hardware", "Is the machine well: GPUs, host, process."},
    {Layer::kService, "Service", "Is the service well: traffic, latency, errors, the engine, the gateway."},
    {Layer::kBusiness, "Business", "Does it do any good: outcomes that came back by `POST /v1/feedback`."},
};

std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.replace(at, 1, "\\|");
  return text;
}

void write_row(std::string& out, const Description& metric) {
  std::string labels;
  for (const std::string& label : metric.labels) labels.append(labels.empty() ? "`" : ", `").append(label).append("`");
  out.append("| `").append(metric.name).append("` | ").append(name_of(metric.kind)).append(" | ").append(metric.unit);
  out.append(" | ").append(labels).append(" | ").append(cell(metric.help)).append(" |\n");
}

}  // namespace

std::string print_markdown() {
  std::string out =
      "# Metrics\n\nEvery metric that Spillway exports. Printed by `spillway metrics docs`; a test holds this file "
      "equal.\n"
      "Histograms come in the classic form and, over protobuf, in the native one.\n";
  for (const Section& section : kSections) {
    out.append("\n## ").append(section.title).append("\n\n").append(section.text).append("\n\n");
    out += "| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n";
    for (const Exported* metric : Registry::instance().sorted()) {
      if (metric->description().layer == section.layer) write_row(out, metric->description());
    }
  }
  return out;
}

}  // namespace spillway::metrics
