// What the operating system says of this process: memory, descriptors, processor time, start. Any thread; read at each
// call, from /proc.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace spillway::metrics {

struct ProcessReading {
  double resident_bytes = 0;
  double virtual_bytes = 0;
  double cpu_seconds = 0;
  double start_time_seconds = 0;  // since the epoch
  double open_fds = 0;
  double fds_max = 0;
  double threads = 0;
};

Result<ProcessReading> read_process();

// The reading as Prometheus text, under the names every exporter uses (process_resident_memory_bytes, ...); nothing
// when /proc cannot be read.
void write_process(std::string& out);

}  // namespace spillway::metrics
