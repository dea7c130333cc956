// What /metrics answers: every metric in the format that the scraper prefers of Prometheus text, OpenMetrics (with
// exemplars) and protobuf (with native histograms too). Takes time in proportion to the series, so not for an I/O
// thread.
#pragma once

#include <string>
#include <string_view>

namespace spillway::metrics {

enum class Format { kPrometheusText, kOpenMetrics, kProtobuf };

// Of the media types in an Accept header, by quality, the first that there is; Prometheus text when none is.
Format choose_format(std::string_view accept);
std::string_view content_type(Format format);

// Every declared metric, sorted by name.
std::string expose(Format format);
inline std::string prometheus_text() { return expose(Format::kPrometheusText); }

}  // namespace spillway::metrics
