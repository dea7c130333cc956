#include "telemetry/hardware/gpu_faults.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"

namespace spillway::telemetry {

// A part of a GPU (MIG) has a UUID of its own, under which no whole one is shown: then every GPU may be the one.
bool GpuFaults::uses(const std::string& uuid, const std::vector<std::string>& uuids) const {
  if (used_.contains(uuid)) return true;
  return std::ranges::any_of(used_,
                             [&](const std::string& used) { return std::ranges::find(uuids, used) == uuids.end(); });
}

void GpuFaults::take(size_t gpu, uint64_t xid, const std::vector<std::string>& uuids) {
  if (ignored_.contains(xid) || gpu >= uuids.size() || !uses(uuids[gpu], uuids)) return;
  std::lock_guard lock(mutex_);
  if (!fault_.empty()) return;
  fault_ = fmt::format("GPU {} ({}) reported XID {}", gpu, uuids[gpu], xid);
  SW_ERROR("telemetry: {}: not ready until the program is started anew", fault_);
}

std::string GpuFaults::fault() const {
  std::lock_guard lock(mutex_);
  return fault_;
}

}  // namespace spillway::telemetry
