#include "telemetry/hardware/host.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

using metrics::Counter;
using metrics::Gauge;
using metrics::Layer;
constexpr Layer kLayer = Layer::kHardware;

Counter cpu("spillway_host_cpu_seconds_total", "Time of all processors, by what they did.", {"mode"}, kLayer);
Gauge cpus("spillway_host_cpus", "Processors.", {}, kLayer);
Gauge memory_total("spillway_host_memory_total_bytes", "Memory of the host.", {}, kLayer);
Gauge memory_available("spillway_host_memory_available_bytes", "Memory that programs could still get.", {}, kLayer);
Gauge swap_used("spillway_host_swap_used_bytes", "Swap in use.", {}, kLayer);
Gauge load("spillway_host_load_1m", "Tasks that run or wait, over a minute.", {}, kLayer);
Counter disk_bytes("spillway_host_disk_bytes_total", "Bytes of disks.", {"disk", "direction"}, kLayer);
Counter disk_busy("spillway_host_disk_busy_seconds_total", "Time in which a disk had work.", {"disk"}, kLayer);
Counter network_bytes("spillway_host_network_bytes_total", "Bytes of networks.", {"interface", "direction"}, kLayer);
Counter network_errors("spillway_host_network_errors_total", "Errors of networks.", {"interface", "direction"}, kLayer);
Gauge fds_open("spillway_host_fds_open", "Descriptors open on the host.", {}, kLayer);
Gauge fds_max("spillway_host_fds_max", "Descriptors that the host may have open.", {}, kLayer);
Counter pressure("spillway_host_pressure_seconds_total",
                 "Time in which tasks waited for cpu, memory or io: some of them, or all (full).", {"resource", "kind"},
                 kLayer);

constexpr double kSector = 512, kMicro = 1e-6, kMilli = 1e-3, kKibi = 1024;

void read_cpu(const std::string& proc, HostReading& reading) {
  std::ifstream in(proc + "/stat");
  const double ticks = double(::sysconf(_SC_CLK_TCK));
  int processors = 0;
  for (std::string line; std::getline(in, line) && line.starts_with("cpu");) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name != "cpu") {
      ++processors;
      continue;
    }
    double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
    if (!(words >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal)) return;
    reading.cpu_seconds = {{"user", (user + nice) / ticks},
                           {"system", (system + irq + softirq) / ticks},
                           {"idle", idle / ticks},
                           {"iowait", iowait / ticks},
                           {"steal", steal / ticks}};
  }
  if (processors > 0) reading.cpus = processors;
}

void read_memory(const std::string& proc, HostReading& reading) {
  std::ifstream in(proc + "/meminfo");
  std::map<std::string, double> bytes;
  std::string name, unit;
  for (double kib = 0; in >> name >> kib; std::getline(in, unit)) bytes[name] = kib * kKibi;
  const auto find = [&](const char* key) -> std::optional<double> {
    const auto at = bytes.find(key);
    return at == bytes.end() ? std::nullopt : std::optional(at->second);
  };
  reading.memory_total_bytes = find("MemTotal:");
  reading.memory_available_bytes = find("MemAvailable:");
  const auto swap = find("SwapTotal:"), free = find("SwapFree:");
  if (swap && free) reading.memory_swap_used_bytes = *swap - *free;
}

void read_disks(const std::string& proc, const std::string& sys, HostReading& reading) {
  std::ifstream in(proc + "/diskstats");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    double skip = 0, sectors_read = 0, sectors_written = 0, busy_ms = 0;
    words >> skip >> skip >> name >> skip >> skip >> sectors_read >> skip >> skip >> skip >> sectors_written >> skip >>
        skip >> busy_ms;
    if (!words || name.starts_with("loop") || name.starts_with("ram")) continue;
    std::error_code error;
    if (!std::filesystem::exists(sys + "/block/" + name, error)) continue;  // a partition
    reading.disks[name] = {sectors_read * kSector, sectors_written * kSector, busy_ms * kMilli};
  }
}

void read_networks(const std::string& proc, HostReading& reading) {
  std::ifstream in(proc + "/net/dev");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string name = line.substr(line.find_first_not_of(' '), colon - line.find_first_not_of(' '));
    std::istringstream words(line.substr(colon + 1));
    NetworkReading network;
    double skip = 0;
    words >> network.received_bytes >> skip >> network.received_errors;
    for (int i = 0; i < 5; ++i) words >> skip;
    words >> network.sent_bytes >> skip >> network.sent_errors;
    if (words && name != "lo") reading.networks[name] = network;
  }
}

void read_pressure(const std::string& proc, HostReading& reading) {
  for (const std::string resource : {"cpu", "memory", "io"}) {
    std::ifstream in(proc + "/pressure/" + resource);
    for (std::string line; std::getline(in, line);) {
      const size_t total = line.find("total=");
      if (total == std::string::npos) continue;
      const std::string kind = line.substr(0, line.find(' '));
      reading.pressure_seconds[resource + " " + kind] = std::strtod(line.c_str() + total + 6, nullptr) * kMicro;
    }
  }
}

void set(Gauge& gauge, std::optional<double> value) {
  if (value) gauge->set(*value);
}

}  // namespace

HostReading read_host(const std::string& proc, const std::string& sys) {
  HostReading reading;
  read_cpu(proc, reading);
  read_memory(proc, reading);
  read_disks(proc, sys, reading);
  read_networks(proc, reading);
  read_pressure(proc, reading);
  std::ifstream load_file(proc + "/loadavg");
  if (double value = 0; load_file >> value) reading.load_1m = value;
  std::ifstream files(proc + "/sys/fs/file-nr");
  double open = 0, free = 0, most = 0;
  if (files >> open >> free >> most) {
    reading.fds_open = open - free;
    reading.fds_max = most;
  }
  return reading;
}

void record_host() {
  const HostReading reading = read_host();
  for (const auto& [mode, value] : reading.cpu_seconds) cpu.with({mode}).set(value);
  set(cpus, reading.cpus);
  set(memory_total, reading.memory_total_bytes);
  set(memory_available, reading.memory_available_bytes);
  set(swap_used, reading.memory_swap_used_bytes);
  set(load, reading.load_1m);
  set(fds_open, reading.fds_open);
  set(fds_max, reading.fds_max);
  for (const auto& [name, disk] : reading.disks) {
    disk_bytes.with({name, "read"}).set(disk.read_bytes);
    disk_bytes.with({name, "write"}).set(disk.written_bytes);
    disk_busy.with({name}).set(disk.busy_seconds);
  }
  for (const auto& [name, network] : reading.networks) {
    network_bytes.with({name, "rx"}).set(network.received_bytes);
    network_bytes.with({name, "tx"}).set(network.sent_bytes);
    network_errors.with({name, "rx"}).set(network.received_errors);
    network_errors.with({name, "tx"}).set(network.sent_errors);
  }
  for (const auto& [key, value] : reading.pressure_seconds) {
    const size_t space = key.find(' ');
    pressure.with({std::string_view(key).substr(0, space), std::string_view(key).substr(space + 1)}).set(value);
  }
}

}  // namespace spillway::telemetry
