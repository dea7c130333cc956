#include "telemetry/hardware/nvml.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <time.h>

#include <iterator>

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

enum class Call { kUtilization, kMemory, kTemperature, kPower, kEnergy, kClocks, kPcie, kEcc, kLinks };

// What it is worth that each is fresh: sums since the driver was loaded lose nothing by being read late.
constexpr struct {
  Call call;
  const char* name;
  double weight;
} kCallTable[] = {{Call::kUtilization, "utilization", 1},
                  {Call::kMemory, "memory", 1},
                  {Call::kTemperature, "temperature", 1},
                  {Call::kPower, "power", 1},
                  {Call::kEnergy, "energy", 0.1},
                  {Call::kClocks, "clocks", 0.5},
                  {Call::kPcie, "pcie", 0.2},
                  {Call::kEcc, "ecc", 0.1},
                  {Call::kLinks, "nvlink", 0.1}};
static_assert(std::size(kCallTable) == Nvml::kCalls);

double thread_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
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
  std::vector<double> weights;
  for (const auto& row : kCallTable) weights.push_back(row.weight);
  budget_.emplace(kShare, std::move(weights), gpus_.size());
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

const char* Nvml::name_of_call(size_t call) { return kCallTable[call].name; }

std::vector<GpuReading> Nvml::read() { return read_some(std::chrono::steady_clock::now(), true); }
std::vector<GpuReading> Nvml::read_due(TimePoint now) { return read_some(now, false); }

std::vector<GpuReading> Nvml::read_some(TimePoint now, bool all) {
  std::vector<GpuReading> readings(gpus_.size());
  for (size_t i = 0; i < gpus_.size(); ++i) {
    readings[i].uuid = gpus_[i].uuid;
    readings[i].name = gpus_[i].name;
    for (size_t call = 0; call < kCalls; ++call) {
      if (!all && !budget_->is_due(call, i, now)) continue;
      const double before = thread_cpu_s();
      read_call(call, gpus_[i].device, readings[i]);
      budget_->note(call, i, now, thread_cpu_s() - before);
    }
  }
  return readings;
}

void Nvml::read_call(size_t call, Device device, GpuReading& reading) const {
  using Wide = unsigned long long;
  switch (kCallTable[call].call) {
    case Call::kUtilization: {
      nvml::Utilization busy{};
      if (call_->utilization == nullptr || call_->utilization(device, &busy) != kSuccess) return;
      reading.utilization_ratio = busy.gpu * kPercent;
      reading.memory_busy_ratio = busy.memory * kPercent;
      return;
    }
    case Call::kMemory:
      return read_memory(device, reading);
    case Call::kTemperature:
      reading.temperature_celsius = ask<unsigned>(1, call_->temperature, device, nvml::kTemperatureGpu);
      return;
    case Call::kPower:
      reading.power_watts = ask<unsigned>(kMilli, call_->power, device);
      return;
    case Call::kEnergy:
      reading.energy_joules = ask<Wide>(kMilli, call_->energy, device);
      return;
    case Call::kClocks: {
      reading.sm_clock_hertz = ask<unsigned>(kMega, call_->clock, device, nvml::kClockSm);
      reading.memory_clock_hertz = ask<unsigned>(kMega, call_->clock, device, nvml::kClockMemory);
      Wide reasons = 0;
      if (call_->throttle != nullptr && call_->throttle(device, &reasons) == kSuccess) {
        reading.throttle_reasons = reasons;
      }
      return;
    }
    case Call::kPcie:
      reading.pcie_tx_bytes_per_s = ask<unsigned>(kKibi, call_->pcie, device, nvml::kPcieTx);
      reading.pcie_rx_bytes_per_s = ask<unsigned>(kKibi, call_->pcie, device, nvml::kPcieRx);
      return;
    case Call::kEcc:
      reading.ecc_corrected = ask<Wide>(1, call_->ecc, device, nvml::kCorrected, nvml::kSinceLoad);
      reading.ecc_uncorrected = ask<Wide>(1, call_->ecc, device, nvml::kUncorrected, nvml::kSinceLoad);
      return;
    case Call::kLinks:
      return read_links(device, reading);
  }
}

void Nvml::read_memory(Device device, GpuReading& reading) const {
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
}

void Nvml::read_links(Device device, GpuReading& reading) const {
  nvml::FieldValue links[2] = {};
  links[0].field = nvml::kFieldNvlinkDataTx;
  links[1].field = nvml::kFieldNvlinkDataRx;
  links[0].scope = links[1].scope = nvml::kAllLinks;
  if (call_->fields == nullptr || call_->fields(device, 2, links) != kSuccess) return;
  if (const auto sent = number_of(links[0])) reading.nvlink_tx_bytes = *sent * kKibi;
  if (const auto received = number_of(links[1])) reading.nvlink_rx_bytes = *received * kKibi;
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
