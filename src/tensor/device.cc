#include "tensor/device.h"

#include <charconv>

#include "tensor/cuda/cuda.h"

namespace spillway::tensor {

Result<Device> parse_device(std::string_view text) {
  if (text == "cpu") return Device{};
  if (text == "cuda") return Device{DeviceKind::kCuda, 0};
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    int index = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + kPrefix.size(), end, index);
    if (parsed.ec == std::errc() && parsed.ptr == end && index >= 0) return Device{DeviceKind::kCuda, index};
  }
  return invalid("expected a device \"cpu\" or \"cuda:N\", found \"" + std::string(text) + "\"");
}

std::string to_string(Device device) {
  switch (device.kind) {
    case DeviceKind::kCpu:
      return "cpu";
    case DeviceKind::kCuda:
      return "cuda:" + std::to_string(device.index);
    case DeviceKind::kPinned:
      return "pinned";
  }
  return "";
}

Status check_available(Device device) {
  return device.kind == DeviceKind::kCuda ? cuda::check_device(device.index) : Status();
}

}  // namespace spillway::tensor
