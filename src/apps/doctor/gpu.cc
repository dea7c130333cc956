// The GPU driver, NCCL, and what this build can do with them. Both are found by loading their libraries, so that the
// program itself links neither.
#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <memory>

#include "apps/doctor/finding.h"
#include "apps/system.h"
#include "tensor/cuda/cuda.h"
#include "tensor/device.h"

namespace spillway::apps {
namespace {

using Level = Finding::Level;

struct Library {
  explicit Library(const char* name) : handle(dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {}
  ~Library() {
    if (handle) dlclose(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <class Function>
  Function* find(const char* name) const {
    return handle ? reinterpret_cast<Function*>(dlsym(handle, name)) : nullptr;
  }

  void* handle;
};

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

// "NVIDIA H200, 139.8 GiB, compute capability 9.0"
std::string describe_gpu(const Library& cuda, int device) {
  const auto name_of = cuda.find<int(char*, int, int)>("cuDeviceGetName");
  const auto memory_of = cuda.find<int(size_t*, int)>("cuDeviceTotalMem_v2");
  const auto attribute_of = cuda.find<int(int*, int, int)>("cuDeviceGetAttribute");
  constexpr int kComputeMajor = 75, kComputeMinor = 76;  // CUdevice_attribute
  char name[128] = "unknown";
  size_t bytes = 0;
  int major = 0, minor = 0;
  if (name_of) name_of(name, sizeof(name) - 1, device);
  if (memory_of) memory_of(&bytes, device);
  if (attribute_of) attribute_of(&major, kComputeMajor, device), attribute_of(&minor, kComputeMinor, device);
  const int chip = 10 * major + minor;
  const int code = tensor::cuda::check_device(device).ok() ? tensor::cuda::device_info(device).capability() : chip;
  return fmt::format(
      "GPU {}: {}, {}, compute capability {}.{}: {}{}", device, name, format_bytes(int64_t(bytes)), major, minor,
      tensor::cuda::precision_tier(code),
      code == chip ? "" : fmt::format(" (by code for {}.{}, the newest of this build)", code / 10, code % 10));
}

void check_driver(const Library& cuda, Findings& findings) {
  const auto init = cuda.find<int(unsigned)>("cuInit");
  const auto version_of = cuda.find<int(int*)>("cuDriverGetVersion");
  const auto count_of = cuda.find<int(int*)>("cuDeviceGetCount");
  if (!init || !version_of || !count_of) {
    findings.push_back({Level::kWarning, "GPU", "libcuda.so.1 is there but lacks its entry points",
                        "install the NVIDIA driver again"});
    return;
  }
  int version = 0, count = 0;
  version_of(&version);
  if (const int error = init(0); error != 0) {
    const bool device_file = access("/dev/nvidiactl", F_OK) == 0;
    findings.push_back(
        {Level::kWarning, "GPU",
         fmt::format("the driver (CUDA {}) answers with error {}", version_text(version), error),
         device_file ? "load the kernel module that matches the driver's library (often: reboot after an upgrade)"
                     : "there is no /dev/nvidiactl: start the container with --gpus all, or load the nvidia module"});
    return;
  }
  count_of(&count);
  findings.push_back({Level::kGood, "GPU",
                      fmt::format("the driver is there, for CUDA up to {}; {} GPUs", version_text(version), count),
                      ""});
  for (int device = 0; device < count; ++device)
    findings.push_back({Level::kGood, "GPU", describe_gpu(cuda, device), ""});
}

void check_build(const config::Config& config, bool has_gpu, Findings& findings) {
  const std::string& wanted = config.text("hardware.device");
  const auto available = tensor::check_available({tensor::DeviceKind::kCuda, 0});
  if (available.ok()) return;
  if (wanted.starts_with("cuda")) {
    findings.push_back(
        {Level::kBad, "GPU", "device " + wanted + " is asked for: " + available.error().message, "use --device cpu"});
  } else if (has_gpu) {
    findings.push_back(
        {Level::kWarning, "GPU", "not used: " + available.error().message, "nothing, if the CPU is meant"});
  } else {
    findings.push_back({Level::kGood, "GPU", "none; this build computes on the CPU", ""});
  }
}

}  // namespace

Findings check_gpu(const config::Config& config) {
  Findings findings;
  const Library cuda("libcuda.so.1");
  if (cuda.handle) check_driver(cuda, findings);
  if (!cuda.handle && access("/proc/driver/nvidia/version", F_OK) == 0) {
    findings.push_back({Level::kWarning, "GPU", "the kernel module is loaded, but libcuda.so.1 is not found",
                        "install the driver's library (libcuda1), or start the container with --gpus all"});
  }
  check_build(config, cuda.handle != nullptr, findings);
  const Library nccl("libnccl.so.2");
  if (const auto version_of = nccl.find<int(int*)>("ncclGetVersion")) {
    int version = 0;
    version_of(&version);
    findings.push_back(
        {Level::kGood, "NCCL", fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100), ""});
  } else if (config.integers("hardware.gpu_ids").size() > 1 && cuda.handle) {
    findings.push_back({Level::kWarning, "NCCL", "not found, and several GPUs are configured", "install libnccl2"});
  } else {
    findings.push_back({Level::kGood, "NCCL", "not found; only several GPUs together need it", ""});
  }
  return findings;
}

}  // namespace spillway::apps
