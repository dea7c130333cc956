// The part of NVIDIA's management library that Spillway calls: its public C interface, declared here so that neither a
// build nor a start needs NVIDIA's headers or driver. Plain declarations; nvml.h loads the library.
#pragma once

namespace spillway::telemetry::nvml {

using Return = int;  // 0: success
inline constexpr Return kSuccess = 0;
inline constexpr Return kTimeout = 10;

struct DeviceHandle;
using Device = DeviceHandle*;
struct EventSetHandle;
using EventSet = EventSetHandle*;

struct Utilization {
  unsigned gpu;     // percent of the last sample period
  unsigned memory;  // percent in which memory was read or written
};

struct Memory {
  unsigned long long total, free, used;  // used: what the driver keeps for itself, too
};

struct MemoryV2 {
  unsigned version;  // kMemoryV2
  unsigned long long total, reserved, free, used;
};
inline constexpr unsigned kMemoryV2 = sizeof(MemoryV2) | 2U << 24;

struct EventData {
  Device device;
  unsigned long long type;
  unsigned long long data;  // of an XID event, the XID
  unsigned gpu_instance, compute_instance;
};

union FieldContent {
  double number;
  unsigned whole;
  unsigned long size;
  unsigned long long wide;
  long long wide_signed;
};

struct FieldValue {
  unsigned field;
  unsigned scope;  // of NVLink's: which link; all bits: all links
  long long timestamp_us;
  long long latency_us;
  int type;  // kDouble ...
  Return result;
  FieldContent content;
};

inline constexpr int kTypeDouble = 0, kTypeUnsigned = 1, kTypeUnsignedLong = 2, kTypeUnsignedLongLong = 3;
inline constexpr unsigned kFieldNvlinkDataTx = 138, kFieldNvlinkDataRx = 139;  // KiB since the driver was loaded
inline constexpr unsigned kAllLinks = 0xffffffffU;
inline constexpr int kTemperatureGpu = 0;
inline constexpr int kClockSm = 1, kClockMemory = 2;  // MHz
inline constexpr int kPcieTx = 0, kPcieRx = 1;        // KiB/s
inline constexpr int kCorrected = 0, kUncorrected = 1, kSinceLoad = 0;
inline constexpr unsigned long long kEventXid = 0x8;

struct ThrottleReason {
  unsigned long long bit;
  const char* name;
};
inline constexpr ThrottleReason kThrottleReasons[] = {
    {0x1, "idle"},
    {0x2, "application_clocks"},
    {0x4, "power_cap"},
    {0x8, "hardware_slowdown"},
    {0x10, "sync_boost"},
    {0x20, "thermal_software"},
    {0x40, "thermal_hardware"},
    {0x80, "power_brake"},
    {0x100, "display_clocks"},
};

}  // namespace spillway::telemetry::nvml
