// Prometheus's protobuf exposition: io.prometheus.client.MetricFamily messages, each with its size before it.
// Histograms carry their classic buckets, their native form and exemplars.
#pragma once

#include <string>

#include "metrics/metrics.h"

namespace spillway::metrics {

void write_protobuf(std::string& out, const Exported& metric);

}  // namespace spillway::metrics
