// StageLog: when the parts of a step began on a device, and what they read and compute; for `bench roofline`. A stage
// lasts until the next one begins. Filled through Stream::stage() while the stream watches; the stream's thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace spillway::tensor {

// What a stage must at least do: bytes through memory, floating-point operations.
struct StageCost {
  double bytes = 0;
  double flops = 0;
};

struct StageMark {
  std::string name;
  StageCost cost;
  int64_t stamp = 0;  // of the device
  std::chrono::steady_clock::time_point at;
};

using StageLog = std::vector<StageMark>;

}  // namespace spillway::tensor
