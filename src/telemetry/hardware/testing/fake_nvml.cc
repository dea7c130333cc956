// A libnvidia-ml.so for tests: two GPUs, the second an old card that lacks most readings. With FAKE_NVML_GPUS=N in the
// environment N whole ones, whose calls take as much processor time as an H200's.
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "telemetry/hardware/nvml_abi.h"

using namespace spillway::telemetry::nvml;

namespace {

constexpr int kNotSupported = 3;
int device_storage[16];
unsigned costly_gpus = 0;  // 0: the two of the tests
int events_left = 2;

Device handle(unsigned index) { return reinterpret_cast<Device>(&device_storage[index]); }
bool is_old(Device device) { return costly_gpus == 0 && device == handle(1); }

double thread_cpu_us() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) * 1e6 + double(now.tv_nsec) * 1e-3;
}

// Works for so long, as the driver does.
void burn(double us) {
  if (costly_gpus == 0) return;
  for (const double end = thread_cpu_us() + us; thread_cpu_us() < end;) continue;
}

constexpr double kCallUs = 290, kEnergyUs = 3600;  // an H200: 2.9 ms for ten calls and 3.6 ms for the energy counter

}  // namespace

extern "C" {

int nvmlInit_v2() {
  const char* count = std::getenv("FAKE_NVML_GPUS");
  costly_gpus = count == nullptr ? 0 : unsigned(std::atoi(count));
  return kSuccess;
}
int nvmlShutdown() { return kSuccess; }
const char* nvmlErrorString(int) { return "an error"; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) { return std::snprintf(text, size, "550.1") > 0 ? 0 : 1; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = costly_gpus > 0 ? costly_gpus : 3;  // the third is lost
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  if (index > 1 && index >= costly_gpus) return kNotSupported;
  *device = handle(index);
  return kSuccess;
}
int nvmlDeviceGetUUID(Device device, char* text, unsigned size) {
  std::snprintf(text, size, "GPU-%d", is_old(device) ? 1 : 0);
  return kSuccess;
}
int nvmlDeviceGetName(Device, char* text, unsigned size) { return std::snprintf(text, size, "Fake H100") > 0 ? 0 : 1; }
int nvmlDeviceGetUtilizationRates(Device device, Utilization* out) {
  burn(kCallUs);
  *out = {75, 40};
  return is_old(device) ? kNotSupported : kSuccess;
}
int nvmlDeviceGetMemoryInfo(Device, Memory* out) {
  *out = {80ULL << 30, 60ULL << 30, 20ULL << 30};
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2* out) {
  burn(kCallUs);
  if (is_old(device) || out->version != kMemoryV2) return kNotSupported;
  *out = {kMemoryV2, 80ULL << 30, 1ULL << 30, 60ULL << 30, 19ULL << 30};
  return kSuccess;
}
int nvmlDeviceGetTemperature(Device, int, unsigned* out) {
  burn(kCallUs);
  *out = 61;
  return kSuccess;
}
int nvmlDeviceGetPowerUsage(Device device, unsigned* out) {
  burn(kCallUs);
  *out = 412500;
  return is_old(device) ? kNotSupported : kSuccess;
}
int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long* out) {
  burn(kEnergyUs);
  *out = 9000123;
  return is_old(device) ? kNotSupported : kSuccess;
}
int nvmlDeviceGetClockInfo(Device, int clock, unsigned* out) {
  burn(kCallUs);
  *out = clock == kClockSm ? 1980 : 2619;
  return kSuccess;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device, unsigned long long* out) {
  burn(kCallUs);
  *out = 0x4 | 0x40;
  return kSuccess;
}
int nvmlDeviceGetPcieThroughput(Device device, int direction, unsigned* out) {
  burn(kCallUs);
  *out = direction == kPcieTx ? 1000 : 2000;
  return is_old(device) ? kNotSupported : kSuccess;
}
int nvmlDeviceGetTotalEccErrors(Device device, int kind, int, unsigned long long* out) {
  burn(kCallUs);
  *out = kind == kCorrected ? 7 : 1;
  return is_old(device) ? kNotSupported : kSuccess;
}
int nvmlDeviceGetFieldValues(Device device, int count, FieldValue* values) {
  burn(kCallUs);
  for (int i = 0; i < count; ++i) {
    values[i].type = kTypeUnsignedLongLong;
    values[i].content.wide = values[i].field == kFieldNvlinkDataTx ? 5 : 6;
    values[i].result = is_old(device) || values[i].scope != kAllLinks ? kNotSupported : kSuccess;
  }
  return kSuccess;
}
int nvmlEventSetCreate(EventSet* set) {
  *set = reinterpret_cast<EventSet>(&events_left);
  return kSuccess;
}
int nvmlEventSetFree(EventSet) { return kSuccess; }
int nvmlDeviceRegisterEvents(Device, unsigned long long, EventSet) { return kSuccess; }
int nvmlEventSetWait_v2(EventSet, EventData* data, unsigned) {
  if (events_left == 0) return kTimeout;
  --events_left;
  *data = {handle(0), kEventXid, 79, 0, 0};
  return kSuccess;
}
}
