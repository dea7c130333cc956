#include "metrics/process.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "metrics/text_format.h"

namespace spillway::metrics {
namespace {

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

void write_process(std::string& out) {
  const auto read = read_process();
  if (!read.ok()) return;
  const auto write = [&](std::string_view name, std::string_view help, Kind kind, double value) {
    write_header(out, name, help, kind);
    write_sample(out, name, "", {}, value);
  };
  write("process_cpu_seconds_total", "Processor time, user and system.", Kind::kCounter, read->cpu_seconds);
  write("process_max_fds", "Most descriptors the process may open.", Kind::kGauge, read->fds_max);
  write("process_open_fds", "Descriptors now open.", Kind::kGauge, read->open_fds);
  write("process_resident_memory_bytes", "Resident memory.", Kind::kGauge, read->resident_bytes);
  write("process_start_time_seconds", "When the process started, since the epoch.", Kind::kGauge,
        read->start_time_seconds);
  write("process_threads", "Threads.", Kind::kGauge, read->threads);
  write("process_virtual_memory_bytes", "Virtual memory.", Kind::kGauge, read->virtual_bytes);
}

}  // namespace spillway::metrics
