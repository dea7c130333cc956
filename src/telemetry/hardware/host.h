// Readings of the host from /proc: processors, memory, disks, network, descriptors, and the pressure that tasks feel
// (PSI). What a kernel or a container does not offer is left out. On the sampler's thread; also a file system of a
// test.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace spillway::telemetry {

struct DiskReading {
  double read_bytes = 0, written_bytes = 0, busy_seconds = 0;
};

struct NetworkReading {
  double received_bytes = 0, sent_bytes = 0, received_errors = 0, sent_errors = 0;
};

struct HostReading {
  std::map<std::string, double> cpu_seconds;  // by mode: user, system, idle, iowait, steal; all processors
  std::optional<double> cpus;
  std::optional<double> memory_total_bytes, memory_available_bytes, memory_swap_used_bytes;
  std::optional<double> load_1m;
  std::map<std::string, DiskReading> disks;  // whole disks, not their partitions
  std::map<std::string, NetworkReading> networks;
  std::optional<double> fds_open, fds_max;
  std::map<std::string, double> pressure_seconds;  // "memory some": time in which some task waited for it
};

HostReading read_host(const std::string& proc = "/proc", const std::string& sys = "/sys");

// Reads and sets the metrics.
void record_host();

}  // namespace spillway::telemetry
