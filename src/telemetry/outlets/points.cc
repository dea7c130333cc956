#include "telemetry/outlets/points.h"

#include <fmt/format.h>
#include <snappy.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "metrics/proto_writer.h"
#include "metrics/registry.h"
#include "metrics/text_format.h"

namespace spillway::telemetry {
namespace {

using metrics::ProtoWriter;

constexpr size_t kUncompressedMax = 64 << 20;

// Collects points into batches.
class Collector {
 public:
  Collector(int64_t time_ms, size_t points_max) : time_ms_(time_ms), points_max_(points_max) {}

  void metric(const metrics::Exported& metric) {
    const metrics::Description& description = metric.description();
    metric.read([&](const metrics::Reading& reading) {
      Point point{description.name, {}, reading.value};
      for (size_t i = 0; i < reading.label_values.size(); ++i) {
        // An empty label is no label at all to the receivers.
        if (reading.label_values[i].empty()) continue;
        point.labels.emplace_back(description.labels[i], reading.label_values[i]);
      }
      std::ranges::sort(point.labels);
      if (reading.distribution == nullptr) {
        if (!std::isnan(point.value)) add(std::move(point));
      } else {
        distribution(point, *reading.distribution);
      }
    });
  }

  std::vector<PointBatch> take() { return std::move(batches_); }

 private:
  void distribution(const Point& series, const metrics::Distribution& values) {
    const double sum = values.sum();
    const std::vector<uint64_t> counts = values.counts();
    uint64_t below = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      below += counts[i];
      Point point{series.name + "_bucket", series.labels, double(below)};
      const bool is_last = i == values.bounds().size();
      point.labels.emplace_back("le", is_last ? "+Inf" : metrics::format_number(values.bounds()[i]));
      std::ranges::sort(point.labels);
      add(std::move(point));
    }
    add({series.name + "_sum", series.labels, sum});
    add({series.name + "_count", series.labels, double(below)});
  }

  void add(Point point) {
    if (batches_.empty() || batches_.back().points.size() >= points_max_) batches_.push_back({time_ms_, {}});
    batches_.back().points.push_back(std::move(point));
  }

  const int64_t time_ms_;
  const size_t points_max_;
  std::vector<PointBatch> batches_;
};

// Reads what encode() wrote; after a fault everything reads as zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }
  size_t left() const { return in_.size(); }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (in_.empty()) break;
      const auto byte = uint8_t(in_[0]);
      in_.remove_prefix(1);
      value |= uint64_t(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    return fail();
  }
  std::string text() {
    const uint64_t size = varint();
    if (size > in_.size()) {
      fail();
      return {};
    }
    std::string read(in_.substr(0, size));
    in_.remove_prefix(size);
    return read;
  }
  double number() {
    if (in_.size() < 8) return double(fail());
    uint64_t bits = 0;
    for (int byte = 0; byte < 8; ++byte) bits |= uint64_t(uint8_t(in_[size_t(byte)])) << (8 * byte);
    in_.remove_prefix(8);
    return std::bit_cast<double>(bits);
  }

 private:
  uint64_t fail() {
    ok_ = false;
    in_ = {};
    return 0;
  }
  std::string_view in_;
  bool ok_ = true;
};

void append_text(std::string& out, std::string_view text) {
  ProtoWriter(out).varint(text.size());
  out += text;
}

void append_number(std::string& out, double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  for (int byte = 0; byte < 8; ++byte) out += char(bits >> (8 * byte));
}

// Names and values of tags may hold no line feed; comma, equals sign and space are escaped.
void append_tag(std::string& out, std::string_view text) {
  for (const char c : text) {
    if (c == ',' || c == '=' || c == ' ') out += '\\';
    out += c == '\n' || c == '\r' ? ' ' : c;
  }
  // At the end it would escape what follows.
  if (text.ends_with('\\')) out += ' ';
}

std::string compress(std::string_view bytes) {
  std::string out;
  snappy::Compress(bytes.data(), bytes.size(), &out);
  return out;
}

}  // namespace

std::vector<PointBatch> read_points(int64_t time_ms, size_t points_max) {
  Collector collector(time_ms, points_max);
  for (const metrics::Exported* metric : metrics::Registry::instance().sorted()) collector.metric(*metric);
  return collector.take();
}

std::string encode(const PointBatch& batch) {
  std::string plain;
  ProtoWriter writer(plain);
  writer.varint(uint64_t(batch.time_ms));
  writer.varint(batch.points.size());
  for (const Point& point : batch.points) {
    append_text(plain, point.name);
    writer.varint(point.labels.size());
    for (const auto& [name, value] : point.labels) {
      append_text(plain, name);
      append_text(plain, value);
    }
    append_number(plain, point.value);
  }
  return compress(plain);
}

Result<PointBatch> decode(std::string_view bytes) {
  size_t size = 0;
  std::string plain;
  if (!snappy::GetUncompressedLength(bytes.data(), bytes.size(), &size) || size > kUncompressedMax ||
      !snappy::Uncompress(bytes.data(), bytes.size(), &plain)) {
    return corrupt(fmt::format("points: expected a snappy block of at most {} bytes, found another", kUncompressedMax));
  }
  Reader reader(plain);
  PointBatch batch;
  batch.time_ms = int64_t(reader.varint());
  const uint64_t count = reader.varint();
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    Point point;
    point.name = reader.text();
    const uint64_t labels = reader.varint();
    for (uint64_t j = 0; j < labels && reader.ok(); ++j) {
      std::string name = reader.text();
      point.labels.emplace_back(std::move(name), reader.text());
    }
    point.value = reader.number();
    batch.points.push_back(std::move(point));
  }
  if (!reader.ok() || !reader.at_end()) {
    return corrupt(fmt::format("points: expected {} points to fill the block, found {}", count,
                               reader.ok() ? fmt::format("{} bytes after them", reader.left()) : "its end before"));
  }
  return batch;
}

std::string influx_lines(const PointBatch& batch) {
  std::string out;
  const std::string time = fmt::format(" {}\n", batch.time_ms);
  for (const Point& point : batch.points) {
    if (!std::isfinite(point.value)) continue;  // InfluxDB knows none
    append_tag(out, point.name);
    for (const auto& [name, value] : point.labels) {
      out += ',';
      append_tag(out, name);
      out += '=';
      append_tag(out, value);
    }
    out += " value=";
    metrics::append_number(out, point.value);
    out += time;
  }
  return out;
}

namespace {

void append_request(ProtoWriter& request, const PointBatch& batch) {
  for (const Point& point : batch.points) {
    request.nested(1, [&](ProtoWriter& series) {
      const auto label = [&](std::string_view name, std::string_view value) {
        series.nested(1, [&](ProtoWriter& pair) {
          pair.text(1, name);
          pair.text(2, value);
        });
      };
      // Sorted, as the receiver asks: "__name__" comes before what begins with a small letter.
      bool named = false;
      for (const auto& [name, value] : point.labels) {
        if (!named && name > "__name__") {
          label("__name__", point.name);
          named = true;
        }
        label(name, value);
      }
      if (!named) label("__name__", point.name);
      series.nested(2, [&](ProtoWriter& sample) {
        sample.number(1, point.value);
        sample.integer(2, uint64_t(batch.time_ms));
      });
    });
  }
}

}  // namespace

std::string remote_write(std::span<const PointBatch> batches) {
  std::string plain;
  ProtoWriter request(plain);
  for (const PointBatch& batch : batches) append_request(request, batch);
  return compress(plain);
}

}  // namespace spillway::telemetry
