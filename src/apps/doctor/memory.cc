// Whether memory is enough for the models, and whether its pages can be large.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "apps/doctor/finding.h"
#include "apps/local_model.h"
#include "apps/system.h"
#include "tensor/cuda/cuda.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;

Finding huge_pages() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  if (!std::getline(in, line)) return {Level::kGood, "huge pages", "not offered by this kernel", ""};
  if (line.find("[never]") == std::string::npos) return {Level::kGood, "huge pages", line, ""};
  return {Level::kWarning, "huge pages", line + ": reading the weights misses the address cache more often",
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
}

// As the engine counts: the share of the whole that it may take, less what others have taken.
int64_t usable_on_gpu(int index, double fraction) {
  const tensor::cuda::MemoryInfo memory = tensor::cuda::memory_info(index);
  return std::max<int64_t>(0, memory.free_bytes - int64_t(double(memory.total_bytes) * (1 - fraction)));
}

}  // namespace

Findings check_memory(const config::Config& config) {
  Findings findings;
  const MemoryReading memory = read_memory();
  std::string what = fmt::format("{} free of {}", format_bytes(memory.available), format_bytes(memory.total));
  if (memory.limit > 0) what += fmt::format(", the container's limit is {}", format_bytes(memory.limit));
  findings.push_back({Level::kGood, "memory", what, ""});
  const int64_t stored = stored_bytes(config);
  if (stored > 0) {
    const auto device = chosen_device(config);
    const bool on_gpu = device.ok() && device->kind == tensor::DeviceKind::kCuda;
    const double fraction = config.number("hardware.memory_fraction");
    const int64_t usable =
        on_gpu ? usable_on_gpu(device->index, fraction) : int64_t(double(memory.usable()) * fraction);
    const std::string weights = fmt::format("the weights are {} as stored", format_bytes(stored)),
                      where = on_gpu ? " on " + tensor::to_string(*device) : "";
    if (stored <= usable) {
      findings.push_back({Level::kGood, "memory", weights + ", which fits" + where, ""});
    } else {
      findings.push_back(
          {Level::kBad, "memory", fmt::format("{}, but {} may be used{}", weights, format_bytes(usable), where),
           "take a smaller model, --precision int8 if it is stored wider, or a machine with more memory"});
    }
  }
  findings.push_back(huge_pages());
  return findings;
}

}  // namespace spillway::apps
