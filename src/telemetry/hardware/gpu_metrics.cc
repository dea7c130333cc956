#include "telemetry/hardware/gpu_metrics.h"

#include <unistd.h>

#include "metrics/metrics.h"

namespace spillway::telemetry {
namespace {

using metrics::Counter;
using metrics::Gauge;
using metrics::Layer;
using Labels = std::vector<std::string>;
constexpr Layer kLayer = Layer::kHardware;
const Labels kGpu = {"gpu"};

Gauge info("spillway_gpu_info", "1; which GPU the number stands for.", {"gpu", "uuid", "name", "driver"}, kLayer);
Gauge utilization("spillway_gpu_utilization_ratio", "Share of time in which a kernel ran.", kGpu, kLayer);
Gauge memory_busy("spillway_gpu_memory_busy_ratio", "Share of time in which memory was read or written.", kGpu, kLayer);
Gauge memory_used("spillway_gpu_memory_used_bytes", "Memory in use.", kGpu, kLayer);
Gauge memory_total("spillway_gpu_memory_total_bytes", "Memory of the GPU.", kGpu, kLayer);
Gauge temperature("spillway_gpu_temperature_celsius", "Temperature of the die.", kGpu, kLayer);
Gauge power("spillway_gpu_power_watts", "Power drawn.", kGpu, kLayer);
Counter energy("spillway_gpu_energy_joules_total", "Energy since the driver was loaded.", kGpu, kLayer);
Gauge clocks("spillway_gpu_clock_hertz", "Clock of the multiprocessors (sm) and the memory.", {"gpu", "clock"}, kLayer);
Gauge throttle("spillway_gpu_throttle", "1 while the clocks are held down for this reason.", {"gpu", "reason"}, kLayer);
Gauge pcie("spillway_gpu_pcie_bytes_per_second", "PCIe traffic of the last 20 ms.", {"gpu", "direction"}, kLayer);
Counter nvlink("spillway_gpu_nvlink_bytes_total", "NVLink traffic, all links.", {"gpu", "direction"}, kLayer);
Counter ecc("spillway_gpu_ecc_errors_total", "Memory errors since the driver was loaded.", {"gpu", "kind"}, kLayer);
Counter xids("spillway_gpu_xid_errors_total", "XID errors that the driver told, by code.", {"gpu", "xid"}, kLayer);

Gauge period(
    "spillway_gpu_reading_period_seconds",
    "Least time between two readings of this kind, so that all of them cost less than 0.07% of a core; a driver's "
    "costly calls come rarer. 0: at each interval.",
    {"reading"}, kLayer);

const Labels kDcgm = {"gpu", "UUID", "device", "modelName", "Hostname", "DCGM_FI_DRIVER_VERSION"};

Gauge dcgm_util("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", kDcgm, kLayer);
Gauge dcgm_copy("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %).", kDcgm, kLayer);
Gauge dcgm_used("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", kDcgm, kLayer);
Gauge dcgm_free("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", kDcgm, kLayer);
Gauge dcgm_temperature("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", kDcgm, kLayer);
Gauge dcgm_power("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", kDcgm, kLayer);
Gauge dcgm_energy("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption since boot (in mJ).", kDcgm,
                  kLayer);
Gauge dcgm_sm_clock("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", kDcgm, kLayer);
Gauge dcgm_memory_clock("DCGM_FI_DEV_MEM_CLOCK", "Memory clock frequency (in MHz).", kDcgm, kLayer);
Gauge dcgm_xid("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", kDcgm, kLayer);

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

void set(Gauge& gauge, std::initializer_list<std::string_view> labels, std::optional<double> value, double scale = 1) {
  if (value) gauge.with(labels).set(*value * scale);
}

void set(Counter& counter, std::initializer_list<std::string_view> labels, std::optional<double> value) {
  if (value) counter.with(labels).set(*value);
}

void record(const std::string& gpu, const GpuReading& reading, const std::string& driver) {
  info.with({gpu, reading.uuid, reading.name, driver}).set(1);
  set(utilization, {gpu}, reading.utilization_ratio);
  set(memory_busy, {gpu}, reading.memory_busy_ratio);
  set(memory_used, {gpu}, reading.memory_used_bytes);
  set(memory_total, {gpu}, reading.memory_total_bytes);
  set(temperature, {gpu}, reading.temperature_celsius);
  set(power, {gpu}, reading.power_watts);
  set(energy, {gpu}, reading.energy_joules);
  set(clocks, {gpu, "sm"}, reading.sm_clock_hertz);
  set(clocks, {gpu, "memory"}, reading.memory_clock_hertz);
  set(pcie, {gpu, "tx"}, reading.pcie_tx_bytes_per_s);
  set(pcie, {gpu, "rx"}, reading.pcie_rx_bytes_per_s);
  set(nvlink, {gpu, "tx"}, reading.nvlink_tx_bytes);
  set(nvlink, {gpu, "rx"}, reading.nvlink_rx_bytes);
  set(ecc, {gpu, "corrected"}, reading.ecc_corrected);
  set(ecc, {gpu, "uncorrected"}, reading.ecc_uncorrected);
  if (!reading.throttle_reasons) return;
  for (const nvml::ThrottleReason& reason : nvml::kThrottleReasons) {
    throttle.with({gpu, reason.name}).set((*reading.throttle_reasons & reason.bit) != 0);
  }
}

void record_as_dcgm(const std::string& gpu, const GpuReading& reading, const std::string& driver,
                    std::optional<double> xid) {
  static const std::string host = host_name();
  const std::string device = "nvidia" + gpu;
  const auto write = [&](Gauge& gauge, std::optional<double> value, double scale = 1) {
    set(gauge, {gpu, reading.uuid, device, reading.name, host, driver}, value, scale);
  };
  constexpr double kPercent = 100, kPerMiB = 1.0 / (1 << 20), kMilli = 1e3, kPerMega = 1e-6;
  write(dcgm_util, reading.utilization_ratio, kPercent);
  write(dcgm_copy, reading.memory_busy_ratio, kPercent);
  write(dcgm_used, reading.memory_used_bytes, kPerMiB);
  write(dcgm_free, reading.memory_free_bytes, kPerMiB);
  write(dcgm_temperature, reading.temperature_celsius);
  write(dcgm_power, reading.power_watts);
  write(dcgm_energy, reading.energy_joules, kMilli);
  write(dcgm_sm_clock, reading.sm_clock_hertz, kPerMega);
  write(dcgm_memory_clock, reading.memory_clock_hertz, kPerMega);
  write(dcgm_xid, xid);
}

}  // namespace

void record_gpus(Nvml& nvml, bool dcgm_names, TimePoint now, GpuFaults* faults) {
  const std::vector<GpuReading> readings = nvml.read_due(now);
  for (size_t call = 0; call < Nvml::kCalls; ++call) {
    period.with({Nvml::name_of_call(call)}).set(nvml.period_s(call));
  }
  std::vector<std::optional<double>> last_xid(readings.size());
  std::vector<std::string> uuids;
  for (const GpuReading& reading : readings) uuids.push_back(reading.uuid);
  for (const Nvml::Xid& xid : nvml.take_xids()) {
    xids.with({std::to_string(xid.gpu), std::to_string(xid.code)}).add();
    last_xid[xid.gpu] = double(xid.code);
    if (faults != nullptr) faults->take(xid.gpu, xid.code, uuids);
  }
  for (size_t i = 0; i < readings.size(); ++i) {
    record(std::to_string(i), readings[i], nvml.driver_version());
    if (dcgm_names) record_as_dcgm(std::to_string(i), readings[i], nvml.driver_version(), last_xid[i]);
  }
}

}  // namespace spillway::telemetry
