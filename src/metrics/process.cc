#include "metrics/process.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

#include "metrics/metrics.h"

namespace spillway::metrics {
namespace {

Counter cpu_seconds("process_cpu_seconds_total", "Processor time, user and system.", {}, Layer::kHardware);
Gauge max_fds("process_max_fds", "Most descriptors the process may open.", {}, Layer::kHardware);
Gauge open_fds("process_open_fds", "Descriptors now open.", {}, Layer::kHardware);
Gauge resident_bytes("process_resident_memory_bytes", "Resident memory.", {}, Layer::kHardware);
Gauge start_time_seconds("process_start_time_seconds", "When the process started, since the epoch.", {},
                         Layer::kHardware);
Gauge threads("process_threads", "Threads.", {}, Layer::kHardware);
Gauge virtual_bytes("process_virtual_memory_bytes", "Virtual memory.", {}, Layer::kHardware);

Result<double> boot_time_seconds() {
  std::ifstream in("/proc/stat");
  std::string word;
  double value = 0;
  while (in >> word) {
    if (word == "btime" && in >> value) return value;
  }
  return corrupt("/proc/stat: expected a btime line, found none");
}

Result<double> count_open_fds() {
  DIR* folder = ::opendir("/proc/self/fd");
  if (!folder) return not_found("/proc/self/fd: cannot be opened");
  double count = -1;  // opendir's own
  while (const dirent* entry = ::readdir(folder)) {
    if (entry->d_name[0] != '.') ++count;
  }
  ::closedir(folder);
  return count;
}

// Fields of /proc/self/stat after the command name, which may itself hold spaces and brackets; [0] is the state.
Result<std::vector<std::string>> stat_fields() {
  std::ifstream in("/proc/self/stat");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const size_t close = text.rfind(')');
  if (close == std::string::npos) return corrupt("/proc/self/stat: expected a command name in brackets");
  std::istringstream rest(text.substr(close + 1));
  std::vector<std::string> fields((std::istream_iterator<std::string>(rest)), {});
  if (fields.size() < 22) {
    return corrupt("/proc/self/stat: expected 24 fields or more, found " + std::to_string(fields.size() + 2));
  }
  return fields;
}

}  // namespace

Result<ProcessReading> read_process() {
  SW_ASSIGN(const std::vector<std::string> fields, stat_fields());
  SW_ASSIGN(const double boot, boot_time_seconds());
  const double ticks = double(::sysconf(_SC_CLK_TCK));
  ProcessReading reading;
  reading.cpu_seconds = (std::stod(fields[11]) + std::stod(fields[12])) / ticks;
  reading.threads = std::stod(fields[17]);
  reading.start_time_seconds = boot + std::stod(fields[19]) / ticks;
  reading.virtual_bytes = std::stod(fields[20]);
  reading.resident_bytes = std::stod(fields[21]) * double(::sysconf(_SC_PAGESIZE));
  SW_ASSIGN(reading.open_fds, count_open_fds());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) reading.fds_max = double(limit.rlim_cur);
  return reading;
}

void refresh_process() {
  const auto read = read_process();
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  const auto set = [&](auto& metric, double ProcessReading::*field) {
    metric->set(read.ok() ? (*read).*field : kUnknown);
  };
  set(cpu_seconds, &ProcessReading::cpu_seconds);
  set(max_fds, &ProcessReading::fds_max);
  set(open_fds, &ProcessReading::open_fds);
  set(resident_bytes, &ProcessReading::resident_bytes);
  set(start_time_seconds, &ProcessReading::start_time_seconds);
  set(threads, &ProcessReading::threads);
  set(virtual_bytes, &ProcessReading::virtual_bytes);
}

}  // namespace spillway::metrics
