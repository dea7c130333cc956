#include "metrics/protobuf_format.h"

#include <algorithm>
#include <cmath>

#include "metrics/proto_writer.h"

namespace spillway::metrics {
namespace {

// Field numbers of io/prometheus/client/metrics.proto.
namespace family {
constexpr int kName = 1, kHelp = 2, kType = 3, kMetric = 4, kUnit = 5;
}
namespace metric_fields {
constexpr int kLabel = 1, kGauge = 2, kCounter = 3, kHistogram = 7;
}
namespace histogram {
constexpr int kCount = 1, kSum = 2, kBucket = 3, kSchema = 5, kZeroThreshold = 6, kZeroCount = 7, kPositiveSpan = 12,
              kPositiveDelta = 13;
}

uint64_t type_of(Kind kind) {
  switch (kind) {
    case Kind::kCounter:
      return 0;
    case Kind::kGauge:
      return 1;
    case Kind::kHistogram:
      return 4;
  }
  return 3;
}

void write_exemplar(ProtoWriter& bucket, const Exemplar& exemplar) {
  bucket.nested(3, [&](ProtoWriter& message) {
    message.nested(1, [&](ProtoWriter& label) {
      label.text(1, "trace_id");
      label.text(2, exemplar.trace_id);
    });
    message.number(2, exemplar.value);
    message.nested(3, [&](ProtoWriter& timestamp) {
      const double whole = std::floor(exemplar.unix_s);
      timestamp.integer(1, uint64_t(whole));
      timestamp.integer(2, uint64_t((exemplar.unix_s - whole) * 1e9));
    });
  });
}

// Runs of buckets that are not empty, as spans: how many are skipped before the run, and its length.
void write_native(ProtoWriter& out, const NativeReading& native) {
  out.zigzag(histogram::kSchema, kNativeSchema);
  out.number(histogram::kZeroThreshold, native_zero_threshold());
  out.integer(histogram::kZeroCount, native.zero);
  std::string deltas;
  ProtoWriter packed(deltas);
  int64_t before = 0;
  int next = 0;  // the first span counts from index 0, the others from the end of the one before
  for (size_t i = 0; i < native.buckets.size();) {
    if (native.buckets[i] == 0) {
      ++i;
      continue;
    }
    const size_t start = i;
    for (; i < native.buckets.size() && native.buckets[i] > 0; ++i) {
      packed.varint(ProtoWriter::zigzag_of(int64_t(native.buckets[i]) - before));
      before = int64_t(native.buckets[i]);
    }
    const int index = kNativeFirstIndex + int(start);
    out.nested(histogram::kPositiveSpan, [&](ProtoWriter& span) {
      span.zigzag(1, index - next);
      span.integer(2, i - start);
    });
    next = index + int(i - start);
  }
  if (!deltas.empty()) out.text(histogram::kPositiveDelta, deltas);
}

void write_distribution(ProtoWriter& out, const Distribution& series) {
  // Classic before native: see Distribution::observe.
  const std::vector<uint64_t> counts = series.counts();
  const std::vector<Exemplar> exemplars = series.exemplars();
  const NativeReading native = series.native();
  out.integer(histogram::kCount, native.count);
  out.number(histogram::kSum, native.sum);
  uint64_t below = 0;
  for (size_t i = 0; i < series.bounds().size(); ++i) {
    below = std::min(below + counts[i], native.count);
    out.nested(histogram::kBucket, [&](ProtoWriter& bucket) {
      bucket.integer(1, below);
      bucket.number(2, series.bounds()[i]);
      if (!exemplars.empty() && !exemplars[i].trace_id.empty()) write_exemplar(bucket, exemplars[i]);
    });
  }
  write_native(out, native);
}

void write_metric(ProtoWriter& out, const Description& description, const Reading& reading) {
  for (size_t i = 0; i < reading.label_values.size(); ++i) {
    out.nested(metric_fields::kLabel, [&](ProtoWriter& label) {
      label.text(1, description.labels[i]);
      label.text(2, reading.label_values[i]);
    });
  }
  switch (description.kind) {
    case Kind::kGauge:
      out.nested(metric_fields::kGauge, [&](ProtoWriter& gauge) { gauge.number(1, reading.value); });
      break;
    case Kind::kCounter:
      out.nested(metric_fields::kCounter, [&](ProtoWriter& counter) { counter.number(1, reading.value); });
      break;
    case Kind::kHistogram:
      out.nested(metric_fields::kHistogram,
                 [&](ProtoWriter& message) { write_distribution(message, *reading.distribution); });
      break;
  }
}

}  // namespace

void write_protobuf(std::string& out, const Exported& metric) {
  const Description& description = metric.description();
  const size_t start = out.size();
  size_t series = 0;
  ProtoWriter(out).delimited([&](ProtoWriter& message) {
    message.text(family::kName, description.name);
    message.text(family::kHelp, description.help);
    message.integer(family::kType, type_of(description.kind));
    metric.read([&](const Reading& reading) {
      ++series;
      message.nested(family::kMetric, [&](ProtoWriter& one) { write_metric(one, description, reading); });
    });
    if (!description.unit.empty()) message.text(family::kUnit, description.unit);
  });
  if (series == 0) out.resize(start);  // what has no series yet is not there
}

}  // namespace spillway::metrics
