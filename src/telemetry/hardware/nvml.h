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
  std::vector<GpuReading> read() const;

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
  GpuReading read_one(const Gpu& gpu) const;

  void* library_ = nullptr;
  std::unique_ptr<Functions> call_;
  std::string driver_version_;
  std::vector<Gpu> gpus_;
  nvml::EventSet events_ = nullptr;
  bool initialised_ = false;
};

}  // namespace spillway::telemetry
