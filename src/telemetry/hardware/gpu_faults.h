// GpuFaults: whether a GPU that this process computes on has told of an error of its own. XIDs that are an
// application's fault are passed over; any other takes the GPU out of service until the process is started anew, as
// NVIDIA's device plugin for Kubernetes does it. Told by the recorder's thread, asked by any. Not its job: counting
// XIDs (gpu_metrics).
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace spillway::telemetry {

class GpuFaults {
 public:
  // used: of the GPUs that this process computes on; none: no XID matters here.
  GpuFaults(std::set<std::string> used_uuids, std::set<uint64_t> ignored_xids)
      : used_(std::move(used_uuids)), ignored_(std::move(ignored_xids)) {}

  // An XID of the GPU with that index; uuids: of all GPUs that the driver shows.
  void take(size_t gpu, uint64_t xid, const std::vector<std::string>& uuids);
  std::string fault() const;  // the first, in words; empty: none

 private:
  bool uses(const std::string& uuid, const std::vector<std::string>& uuids) const;

  const std::set<std::string> used_;
  const std::set<uint64_t> ignored_;
  mutable std::mutex mutex_;
  std::string fault_;
};

}  // namespace spillway::telemetry
