// Nvml: readings of this machine's NVIDIA GPUs. The library is loaded when the program runs; a machine without it has
// no GPUs to read. Each reading is optional: a card that lacks one leaves it out. Owned by the sampler, on its thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "telemetry/hardware/nvml_abi.h"
#include "telemetry/hardware/reading_budget.h"

namespace spillway::telemetry {

struct GpuReading {
  std::string uuid, name;
  std::optional<double> utilization_ratio, memory_busy_ratio;
  std::optional<double> memory_used_bytes, memory_free_bytes, memory_total_bytes;
  std::optional<double> temperature_celsius, power_watts, energy_joules;
  std::optional<double> sm_clock_hertz, memory_clock_hertz;
  std::optional<uint64_t> throttle_reasons;  // bits of nvml::kThrottleReasons
  std::optional<double> pcie_tx_bytes_per_s, pcie_rx_bytes_per_s;
  std::optional<double> nvlink_tx_bytes, nvlink_rx_bytes;  // since the driver was loaded
  std::optional<double> ecc_corrected, ecc_uncorrected;    // since the driver was loaded
};

class Nvml {
 public:
  // library: its file, found as the dynamic loader finds libraries. kNotFound where there is none.
  static Result<std::unique_ptr<Nvml>> load(const std::string& library = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  const std::string& driver_version() const { return driver_version_; }
  std::vector<GpuReading> read();  // all there is, now
  // What is due, so that all readings together cost no more than kShare of a core: costly calls come rarer.
  std::vector<GpuReading> read_due(TimePoint now);

  static constexpr double kShare = 0.0007;
  // The calls that a reading consists of, and how often each is made now.
  static constexpr size_t kCalls = 9;
  static const char* name_of_call(size_t call);
  double period_s(size_t call) const { return budget_->period_s(call); }

  struct Xid {
    size_t gpu = 0;
    uint64_t code = 0;
  };
  std::vector<Xid> take_xids();  // the XID errors that came since the last call

 private:
  struct Functions;
  struct Gpu {
    nvml::Device device = nullptr;
    std::string uuid, name;
  };

  Nvml();
  Status resolve(const std::string& library);
  Status find_gpus();
  void watch_xids();
  std::vector<GpuReading> read_some(TimePoint now, bool all);
  void read_call(size_t call, nvml::Device device, GpuReading& reading) const;
  void read_memory(nvml::Device device, GpuReading& reading) const;
  void read_links(nvml::Device device, GpuReading& reading) const;

  void* library_ = nullptr;
  std::unique_ptr<Functions> call_;
  std::string driver_version_;
  std::vector<Gpu> gpus_;
  std::optional<ReadingBudget> budget_;  // since the GPUs are known
  nvml::EventSet events_ = nullptr;
  bool initialised_ = false;
};

}  // namespace spillway::telemetry
