#include "telemetry/hardware/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace spillway::telemetry {

using nvml::Device;
using nvml::kSuccess;
using nvml::Return;

namespace {

constexpr size_t kTextSize = 96;
constexpr double kMega = 1e6, kMilli = 1e-3, kKibi = 1024, kPercent = 0.01;

// The value that a call gave, times scale; nothing when the card or the driver does not have it.
template <class Out, class Function, class... Before>
std::optional<double> ask(double scale, Function function, Before... before) {
  Out out{};
  if (function == nullptr || function(before..., &out) != kSuccess) return std::nullopt;
  return double(out) * scale;
}

std::optional<double> number_of(const nvml::FieldValue& field) {
  if (field.result != kSuccess) return std::nullopt;
  switch (field.type) {
    case nvml::kTypeDouble:
      return field.content.number;
    case nvml::kTypeUnsigned:
      return double(field.content.whole);
    case nvml::kTypeUnsignedLong:
      return double(field.content.size);
    case nvml::kTypeUnsignedLongLong:
      return double(field.content.wide);
    default:
      return std::nullopt;
  }
}

}  // namespace

// Null where the driver is too old to have the function; those that any driver has are checked in resolve().
struct Nvml::Functions {
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  const char* (*error_string)(Return) = nullptr;
  Return (*driver_version)(char*, unsigned) = nullptr;
  Return (*count)(unsigned*) = nullptr;
  Return (*by_index)(unsigned, Device*) = nullptr;
  Return (*uuid)(Device, char*, unsigned) = nullptr;
  Return (*name)(Device, char*, unsigned) = nullptr;
  Return (*utilization)(Device, nvml::Utilization*) = nullptr;
  Return (*memory)(Device, nvml::Memory*) = nullptr;
  Return (*memory_v2)(Device, nvml::MemoryV2*) = nullptr;
  Return (*temperature)(Device, int, unsigned*) = nullptr;
  Return (*power)(Device, unsigned*) = nullptr;
  Return (*energy)(Device, unsigned long long*) = nullptr;
  Return (*clock)(Device, int, unsigned*) = nullptr;
  Return (*throttle)(Device, unsigned long long*) = nullptr;
  Return (*pcie)(Device, int, unsigned*) = nullptr;
  Return (*ecc)(Device, int, int, unsigned long long*) = nullptr;
  Return (*fields)(Device, int, nvml::FieldValue*) = nullptr;
  Return (*event_set_create)(nvml::EventSet*) = nullptr;
  Return (*event_set_free)(nvml::EventSet) = nullptr;
  Return (*register_events)(Device, unsigned long long, nvml::EventSet) = nullptr;
  Return (*wait_event)(nvml::EventSet, nvml::EventData*, unsigned) = nullptr;
};

Nvml::Nvml() : call_(std::make_unique<Functions>()) {}

Nvml::~Nvml() {
  if (events_ != nullptr && call_->event_set_free != nullptr) call_->event_set_free(events_);
  if (initialised_) call_->shutdown();
  if (library_ != nullptr) ::dlclose(library_);
}

Result<std::unique_ptr<Nvml>> Nvml::load(const std::string& library) {
  std::unique_ptr<Nvml> nvml(new Nvml);
  SW_TRY(nvml->resolve(library));
  if (const Return result = nvml->call_->init(); result != kSuccess) {
    const char* reason = nvml->call_->error_string == nullptr ? "" : nvml->call_->error_string(result);
    return Error{ErrorCode::kUnavailable, fmt::format("{}: nvmlInit: error {} {}", library, result, reason)};
  }
  nvml->initialised_ = true;
  SW_TRY(nvml->find_gpus());
  nvml->watch_xids();
  return nvml;
}

Status Nvml::resolve(const std::string& library) {
  library_ = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    const char* reason = ::dlerror();
    return not_found(library + ": " + (reason == nullptr ? "cannot be loaded" : reason));
  }
  const char* missing = nullptr;
  const auto bind = [&](auto& function, const char* symbol, bool needed = false) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(library_, symbol));
    if (function == nullptr && needed) missing = symbol;
  };
  bind(call_->init, "nvmlInit_v2", true);
  bind(call_->shutdown, "nvmlShutdown", true);
  bind(call_->count, "nvmlDeviceGetCount_v2", true);
  bind(call_->by_index, "nvmlDeviceGetHandleByIndex_v2", true);
  bind(call_->error_string, "nvmlErrorString");
  bind(call_->driver_version, "nvmlSystemGetDriverVersion");
  bind(call_->uuid, "nvmlDeviceGetUUID");
  bind(call_->name, "nvmlDeviceGetName");
  bind(call_->utilization, "nvmlDeviceGetUtilizationRates");
  bind(call_->memory, "nvmlDeviceGetMemoryInfo");
  bind(call_->memory_v2, "nvmlDeviceGetMemoryInfo_v2");
  bind(call_->temperature, "nvmlDeviceGetTemperature");
  bind(call_->power, "nvmlDeviceGetPowerUsage");
  bind(call_->energy, "nvmlDeviceGetTotalEnergyConsumption");
  bind(call_->clock, "nvmlDeviceGetClockInfo");
  bind(call_->throttle, "nvmlDeviceGetCurrentClocksThrottleReasons");
  bind(call_->pcie, "nvmlDeviceGetPcieThroughput");
  bind(call_->ecc, "nvmlDeviceGetTotalEccErrors");
  bind(call_->fields, "nvmlDeviceGetFieldValues");
  bind(call_->event_set_create, "nvmlEventSetCreate");
  bind(call_->event_set_free, "nvmlEventSetFree");
  bind(call_->register_events, "nvmlDeviceRegisterEvents");
  bind(call_->wait_event, "nvmlEventSetWait_v2");
  if (missing != nullptr) return unsupported(library + ": expected the function " + missing + ", found none");
  return {};
}

Status Nvml::find_gpus() {
  char text[kTextSize] = {};
  if (call_->driver_version != nullptr && call_->driver_version(text, kTextSize) == kSuccess) driver_version_ = text;
  unsigned count = 0;
  if (const Return result = call_->count(&count); result != kSuccess) {
    return Error{ErrorCode::kUnavailable, fmt::format("nvmlDeviceGetCount: error {}", result)};
  }
  for (unsigned i = 0; i < count; ++i) {
    Gpu gpu;
    if (call_->by_index(i, &gpu.device) != kSuccess) continue;  // lost, or not ours to see
    if (call_->uuid != nullptr && call_->uuid(gpu.device, text, kTextSize) == kSuccess) gpu.uuid = text;
    if (call_->name != nullptr && call_->name(gpu.device, text, kTextSize) == kSuccess) gpu.name = text;
    gpus_.push_back(std::move(gpu));
  }
  return {};
}

void Nvml::watch_xids() {
  if (call_->event_set_create == nullptr || call_->register_events == nullptr || call_->wait_event == nullptr) return;
  if (call_->event_set_create(&events_) != kSuccess) {
    events_ = nullptr;
    return;
  }
  for (const Gpu& gpu : gpus_) call_->register_events(gpu.device, nvml::kEventXid, events_);
}

std::vector<GpuReading> Nvml::read() const {
  std::vector<GpuReading> all;
  for (const Gpu& gpu : gpus_) all.push_back(read_one(gpu));
  return all;
}

GpuReading Nvml::read_one(const Gpu& gpu) const {
  GpuReading reading;
  reading.uuid = gpu.uuid;
  reading.name = gpu.name;
  const Device device = gpu.device;
  nvml::Utilization busy{};
  if (call_->utilization != nullptr && call_->utilization(device, &busy) == kSuccess) {
    reading.utilization_ratio = busy.gpu * kPercent;
    reading.memory_busy_ratio = busy.memory * kPercent;
  }
  nvml::Memory memory{};
  nvml::MemoryV2 exact{nvml::kMemoryV2, 0, 0, 0, 0};
  if (call_->memory_v2 != nullptr && call_->memory_v2(device, &exact) == kSuccess) {
    reading.memory_used_bytes = double(exact.used);
    reading.memory_free_bytes = double(exact.free);
    reading.memory_total_bytes = double(exact.total);
  } else if (call_->memory != nullptr && call_->memory(device, &memory) == kSuccess) {
    reading.memory_used_bytes = double(memory.used);
    reading.memory_free_bytes = double(memory.free);
    reading.memory_total_bytes = double(memory.total);
  }
  reading.temperature_celsius = ask<unsigned>(1, call_->temperature, device, nvml::kTemperatureGpu);
  reading.power_watts = ask<unsigned>(kMilli, call_->power, device);
  reading.energy_joules = ask<unsigned long long>(kMilli, call_->energy, device);
  reading.sm_clock_hertz = ask<unsigned>(kMega, call_->clock, device, nvml::kClockSm);
  reading.memory_clock_hertz = ask<unsigned>(kMega, call_->clock, device, nvml::kClockMemory);
  unsigned long long reasons = 0;
  if (call_->throttle != nullptr && call_->throttle(device, &reasons) == kSuccess) reading.throttle_reasons = reasons;
  reading.pcie_tx_bytes_per_s = ask<unsigned>(kKibi, call_->pcie, device, nvml::kPcieTx);
  reading.pcie_rx_bytes_per_s = ask<unsigned>(kKibi, call_->pcie, device, nvml::kPcieRx);
  using Wide = unsigned long long;
  reading.ecc_corrected = ask<Wide>(1, call_->ecc, device, nvml::kCorrected, nvml::kSinceLoad);
  reading.ecc_uncorrected = ask<Wide>(1, call_->ecc, device, nvml::kUncorrected, nvml::kSinceLoad);
  nvml::FieldValue links[2] = {};
  links[0].field = nvml::kFieldNvlinkDataTx;
  links[1].field = nvml::kFieldNvlinkDataRx;
  links[0].scope = links[1].scope = nvml::kAllLinks;
  if (call_->fields != nullptr && call_->fields(device, 2, links) == kSuccess) {
    if (const auto sent = number_of(links[0])) reading.nvlink_tx_bytes = *sent * kKibi;
    if (const auto received = number_of(links[1])) reading.nvlink_rx_bytes = *received * kKibi;
  }
  return reading;
}

std::vector<Nvml::Xid> Nvml::take_xids() {
  constexpr int kAtOnce = 100;
  std::vector<Xid> taken;
  if (events_ == nullptr) return taken;
  nvml::EventData event{};
  while (int(taken.size()) < kAtOnce && call_->wait_event(events_, &event, 0) == kSuccess) {
    if (event.type != nvml::kEventXid) continue;
    for (size_t gpu = 0; gpu < gpus_.size(); ++gpu) {
      if (gpus_[gpu].device == event.device) taken.push_back({gpu, event.data});
    }
  }
  return taken;
}

}  // namespace spillway::telemetry
