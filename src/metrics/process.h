// What the operating system says of this process: memory, descriptors, processor time, start. Any thread; read at each
// call, from /proc.
#pragma once

#include <cstdint>

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

// Sets the metrics of the process (process_resident_memory_bytes, ..., the names every exporter uses) to a new reading;
// to "not a number" when /proc cannot be read.
void refresh_process();

}  // namespace spillway::metrics
