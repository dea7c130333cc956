#include "metrics/exposition.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "metrics/protobuf_format.h"
#include "metrics/registry.h"
#include "metrics/text_format.h"

namespace spillway::metrics {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The next part of a list, which is taken off.
std::string_view take_part(std::string_view& list, char separator) {
  const size_t end = std::min(list.find(separator), list.size());
  const std::string_view part = trimmed(list.substr(0, end));
  list.remove_prefix(std::min(end + 1, list.size()));
  return part;
}

struct MediaType {
  std::string type, proto, encoding, version;
  double quality = 1;
};

MediaType parse_media_type(std::string_view text) {
  MediaType media;
  media.type = take_part(text, ';');
  std::ranges::transform(media.type, media.type.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  while (!text.empty()) {
    std::string_view value = take_part(text, ';');
    const std::string_view name = take_part(value, '=');
    if (name == "proto") media.proto = value;
    if (name == "encoding") media.encoding = value;
    if (name == "version") media.version = value;
    if (name != "q") continue;
    double quality = 0;
    const auto read = std::from_chars(value.data(), value.data() + value.size(), quality);
    media.quality = read.ec == std::errc() ? quality : 0;
  }
  return media;
}

bool stands_for(const MediaType& media, Format& format) {
  if (media.type == "application/vnd.google.protobuf" && media.proto == "io.prometheus.client.MetricFamily" &&
      (media.encoding.empty() || media.encoding == "delimited")) {
    format = Format::kProtobuf;
    return true;
  }
  if (media.type == "application/openmetrics-text" && (media.version.empty() || media.version == "1.0.0")) {
    format = Format::kOpenMetrics;
    return true;
  }
  if (media.type == "text/plain" || media.type == "text/*" || media.type == "*/*") {
    format = Format::kPrometheusText;
    return true;
  }
  return false;
}

}  // namespace

Format choose_format(std::string_view accept) {
  Format best = Format::kPrometheusText;
  double best_quality = 0;
  while (!accept.empty()) {
    const MediaType media = parse_media_type(take_part(accept, ','));
    Format format{};
    if (media.quality > best_quality && stands_for(media, format)) {
      best = format;
      best_quality = media.quality;
    }
  }
  return best;
}

std::string_view content_type(Format format) {
  switch (format) {
    case Format::kPrometheusText:
      return "text/plain; version=0.0.4; charset=utf-8";
    case Format::kOpenMetrics:
      return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    case Format::kProtobuf:
      return "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
  }
  return "";
}

std::string expose(Format format) {
  std::string out;
  for (const Exported* metric : Registry::instance().sorted()) {
    switch (format) {
      case Format::kPrometheusText:
        write_text(out, *metric, TextDialect::kPrometheus);
        break;
      case Format::kOpenMetrics:
        write_text(out, *metric, TextDialect::kOpenMetrics);
        break;
      case Format::kProtobuf:
        write_protobuf(out, *metric);
        break;
    }
  }
  if (format == Format::kOpenMetrics) out += "# EOF\n";
  return out;
}

}  // namespace spillway::metrics
