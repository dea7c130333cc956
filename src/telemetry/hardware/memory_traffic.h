// MemoryTraffic: bytes that this machine's processors read from and wrote to memory, where something counts them: the
// kernel's resource control (resctrl, mounted) or the memory controllers' own counters (perf, which need
// CAP_PERFMON or perf_event_paranoid <= 0). Where nothing does, why() says so and there are no readings: never a zero.
// On the sampler's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace spillway::telemetry {

struct MemoryTrafficReading {
  std::optional<double> read_bytes, written_bytes;  // of the memory controllers
  std::optional<double> total_bytes;                // where the two are not told apart
};

class MemoryTraffic {
 public:
  // Opens a counter of the kernel: type, event, processor ▸ a descriptor, or -1 with errno set.
  using Open = std::function<int(uint32_t type, uint64_t config, int cpu)>;
  // sys: where /sys is. open: perf_event_open, or a test's.
  static MemoryTraffic find(const std::string& sys = "/sys", const Open& open = {});
  ~MemoryTraffic();
  MemoryTraffic(MemoryTraffic&&) = default;
  MemoryTraffic& operator=(MemoryTraffic&&) = default;

  const std::string& source() const { return source_; }  // "resctrl", "uncore_imc", "none"
  const std::string& why() const { return why_; }        // with "none": what was looked for and found
  MemoryTrafficReading read() const;

 private:
  struct Counter {
    std::shared_ptr<int> descriptor;  // closed with the last copy
    double scale = 0;                 // bytes of one count
    bool written = false;
  };
  MemoryTraffic() = default;
  bool find_resctrl(const std::string& sys);
  bool find_controllers(const std::string& sys, const Open& open);
  // An event of a memory controller as a counter on each processor that it wants.
  bool add(const std::string& folder, const std::string& event, bool written, const Open& open);

  std::string source_ = "none", why_;
  std::vector<std::string> files_;  // of resctrl
  std::vector<Counter> counters_;
};

// Reads and sets the metrics; the first call looks for a source, and says once in the log where there is none.
void record_memory_traffic();

}  // namespace spillway::telemetry
