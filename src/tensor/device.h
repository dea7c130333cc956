// Device: where a tensor's bytes live and kernels run. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spillway::tensor {

// kPinned: host memory that CUDA devices copy from and to at full speed; nothing runs there.
enum class DeviceKind : uint8_t { kCpu, kCuda, kPinned };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

// "cpu" or "cuda:N" ("cuda" means "cuda:0").
Result<Device> parse_device(std::string_view text);
std::string to_string(Device device);

// An error that says what is missing and how to build it when this program cannot use the device.
Status check_available(Device device);

}  // namespace spillway::tensor
