#include "telemetry/hardware/memory_traffic.h"

#include <fmt/format.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/log.h"
#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

namespace fs = std::filesystem;
constexpr metrics::Layer kLayer = metrics::Layer::kHardware;

metrics::Counter traffic("spillway_host_memory_traffic_bytes_total",
                         "Bytes between processors and memory, where the machine counts them (see "
                         "spillway_host_memory_traffic_info): read and write, or total where they are not told apart.",
                         {"direction"}, kLayer);
metrics::Gauge info("spillway_host_memory_traffic_info",
                    "1; what counts memory traffic: resctrl, uncore_imc, or none, and then there is no such series.",
                    {"source"}, kLayer);

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text;
}

std::vector<fs::path> entries(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  }
  return found;
}

int open_event(uint32_t type, uint64_t config, int cpu) {
  perf_event_attr attributes{};
  attributes.type = type;
  attributes.size = sizeof attributes;
  attributes.config = config;
  return int(::syscall(SYS_perf_event_open, &attributes, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
}

// "event=0x04,umask=0x03" with the places that format/ gives its words ("config:0-7"). Nothing when one is not known.
std::optional<uint64_t> config_of(const fs::path& controller, const std::string& event) {
  uint64_t config = 0;
  size_t at = 0;
  while (at < event.size()) {
    const size_t end = std::min(event.find(',', at), event.size());
    const std::string part = event.substr(at, end - at);
    const size_t equals = part.find('=');
    const std::string word = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "1" : part.substr(equals + 1);
    const std::string place = text_of(controller / "format" / word);
    if (!place.starts_with("config:")) return std::nullopt;
    char* rest = nullptr;
    const uint64_t number = std::strtoull(value.c_str(), &rest, 0);
    if (rest == value.c_str() || *rest != '\0') return std::nullopt;
    const unsigned long shift = std::strtoul(place.c_str() + std::strlen("config:"), nullptr, 10);
    if (shift > 63) return std::nullopt;
    config |= number << shift;
    at = end + 1;
  }
  return config;
}

// "0,28" or "0-3": only the first of each range is asked for, as cpumask lists the processors to ask.
std::vector<int> processors_of(const std::string& list) {
  std::vector<int> all;
  for (const char* at = list.c_str(); *at != '\0';) {
    char* end = nullptr;
    all.push_back(int(std::strtol(at, &end, 10)));
    if (end == at) return {};
    const char* comma = std::strchr(end, ',');
    if (comma == nullptr) break;
    at = comma + 1;
  }
  return all;
}

}  // namespace

MemoryTraffic::~MemoryTraffic() = default;

MemoryTraffic MemoryTraffic::find(const std::string& sys, const Open& open) {
  MemoryTraffic found;
  if (found.find_resctrl(sys)) {
    found.source_ = "resctrl";
  } else if (found.find_controllers(sys, open ? open : Open(open_event))) {
    found.source_ = "uncore_imc";
  }
  return found;
}

bool MemoryTraffic::find_resctrl(const std::string& sys) {
  const fs::path folder = fs::path(sys) / "fs/resctrl/mon_data";
  for (const fs::path& cache : entries(folder, "mon_L3_")) {
    const fs::path file = cache / "mbm_total_bytes";
    char* end = nullptr;
    const std::string text = text_of(file);
    if (std::strtoull(text.c_str(), &end, 10); end != text.c_str()) files_.push_back(file.string());
  }
  if (files_.empty()) why_ = folder.string() + ": no mbm_total_bytes (resctrl is not mounted, or has no monitoring)";
  return !files_.empty();
}

bool MemoryTraffic::add(const std::string& folder, const std::string& event, bool written, const Open& open) {
  const fs::path controller(folder);
  const fs::path file = controller / "events" / event;
  const std::string text = text_of(file);
  const auto config = config_of(controller, text);
  const double scale = std::strtod(text_of(file.string() + ".scale").c_str(), nullptr);
  if (text.empty() || !config || scale <= 0 || text_of(file.string() + ".unit") != "MiB") {
    why_ += fmt::format("; {}: expected an event with a scale in MiB, found \"{}\"", file.string(), text);
    return false;
  }
  const auto type = uint32_t(std::strtoul(text_of(controller / "type").c_str(), nullptr, 10));
  for (const int cpu : processors_of(text_of(controller / "cpumask"))) {
    const int descriptor = open(type, *config, cpu);
    if (descriptor < 0) {
      why_ += fmt::format("; {}: perf_event_open: {}", file.string(), std::strerror(errno));
      return false;
    }
    const auto close = [](const int* held) {
      ::close(*held);
      delete held;
    };
    counters_.push_back({std::shared_ptr<int>(new int(descriptor), close), scale * (1 << 20), written});
  }
  return true;
}

bool MemoryTraffic::find_controllers(const std::string& sys, const Open& open) {
  const fs::path devices = fs::path(sys) / "bus/event_source/devices";
  const auto controllers = entries(devices, "uncore_imc");
  if (controllers.empty()) why_ += "; " + devices.string() + ": no uncore_imc";
  for (const fs::path& controller : controllers) {
    std::error_code error;
    // Servers name the events after commands, desktops after what they are; free-running controllers have both.
    const bool server = fs::exists(controller / "events/cas_count_read", error);
    const char* read = server ? "cas_count_read" : "data_read";
    const char* write = server ? "cas_count_write" : "data_write";
    if (add(controller.string(), read, false, open) && add(controller.string(), write, true, open)) continue;
    counters_.clear();  // a part of the controllers would be a wrong sum
    return false;
  }
  return !counters_.empty();
}

MemoryTrafficReading MemoryTraffic::read() const {
  MemoryTrafficReading reading;
  for (const std::string& file : files_) {
    reading.total_bytes = reading.total_bytes.value_or(0) + double(std::strtoull(text_of(file).c_str(), nullptr, 10));
  }
  for (const Counter& counter : counters_) {
    uint64_t count = 0;
    if (::read(*counter.descriptor, &count, sizeof count) != ssize_t(sizeof count)) return {};
    std::optional<double>& sum = counter.written ? reading.written_bytes : reading.read_bytes;
    sum = sum.value_or(0) + double(count) * counter.scale;
  }
  return reading;
}

void record_memory_traffic() {
  static const MemoryTraffic source = [] {
    MemoryTraffic found = MemoryTraffic::find();
    info.with({found.source()}).set(1);
    if (found.source() == "none") SW_INFO("telemetry: memory bandwidth is not counted here: {}", found.why());
    return found;
  }();
  const MemoryTrafficReading reading = source.read();
  if (reading.read_bytes) traffic.with({"read"}).set(*reading.read_bytes);
  if (reading.written_bytes) traffic.with({"write"}).set(*reading.written_bytes);
  if (reading.total_bytes) traffic.with({"total"}).set(*reading.total_bytes);
}

}  // namespace spillway::telemetry
