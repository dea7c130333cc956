#include <fmt/format.h>

#include <atomic>
#include <vector>

#include "tensor/cuda/cuda.h"
#include "tensor/cuda/error.h"

namespace spillway::tensor::cuda {
namespace {

std::atomic<int64_t> allocated{0};

struct Devices {
  std::vector<DeviceInfo> infos;
  std::string problem;  // why there are none
};

int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  SW_CUDA(cudaDeviceGetAttribute(&value, name, index));
  return value;
}

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU";
  for (int i = 0; i < 16; ++i) {
    if (i == 0 || (i >= 4 && i <= 10 && i % 2 == 0)) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

int code_of_this_build(int chip) {
  static const std::vector<int> machine = SPILLWAY_CUDA_CAPABILITIES, portable = SPILLWAY_CUDA_VIRTUAL;
  return code_for(chip, machine, portable);
}

DeviceInfo describe(int index, int driver, int runtime) {
  cudaDeviceProp properties{};
  SW_CUDA(cudaGetDeviceProperties(&properties, index));
  DeviceInfo info;
  info.name = properties.name;
  info.uuid = uuid_text(properties.uuid);
  info.major = properties.major;
  info.minor = properties.minor;
  info.code = code_of_this_build(10 * info.major + info.minor);
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = int64_t(properties.totalGlobalMem);
  info.l2_bytes = properties.l2CacheSize;
  info.shared_bytes_max = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  info.driver = driver;
  info.runtime = runtime;
  return info;
}

Devices find_devices() {
  Devices found;
  int count = 0, driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    found.problem = driver == 0
                        ? "no NVIDIA driver is installed (libcuda.so.1 is not found)"
                        : std::string("the driver says ") + cudaGetErrorName(error) + ", " + cudaGetErrorString(error);
    return found;
  }
  for (int i = 0; i < count; ++i) found.infos.push_back(describe(i, driver, runtime));
  return found;
}

const Devices& devices() {
  static const Devices found = find_devices();
  return found;
}

}  // namespace

std::string built_for() { return SPILLWAY_CUDA_CHIPS; }

int device_count() { return int(devices().infos.size()); }

Status check_device(int index) {
  const std::string name = "device cuda:" + std::to_string(index);
  const Devices& found = devices();
  if (found.infos.empty()) {
    return unsupported(name + ": " + (found.problem.empty() ? "this machine has no NVIDIA GPU" : found.problem) +
                       "; use device \"cpu\" or \"auto\"");
  }
  if (index < 0 || index >= device_count()) {
    return invalid(name + ": expected an index below " + std::to_string(device_count()) + ", found " +
                   std::to_string(index));
  }
  const DeviceInfo& info = found.infos[size_t(index)];
  if (info.code == 0) {
    const std::string chip = std::to_string(10 * info.major + info.minor);
    return unsupported(name + ": " + info.name + " has compute capability " + std::to_string(info.major) + "." +
                       std::to_string(info.minor) + ", this build has code for " + built_for() +
                       " only; build with -DSPILLWAY_CUDA_ARCHITECTURES=" + (chip == "90" ? "90a" : chip));
  }
  return {};
}

const DeviceInfo& device_info(int index) { return devices().infos.at(size_t(index)); }

MemoryInfo memory_info(int index) {
  SW_CUDA(cudaSetDevice(index));
  size_t free = 0, total = 0;
  SW_CUDA(cudaMemGetInfo(&free, &total));
  return {int64_t(free), int64_t(total)};
}

void* allocate(int index, size_t bytes) {
  SW_CUDA(cudaSetDevice(index));
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes == 0 ? 256 : bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    const MemoryInfo memory = memory_info(index);
    throw CudaError(error, "CUDA: device " + std::to_string(index) + " has no room for " + std::to_string(bytes) +
                               " bytes: " + std::to_string(memory.free_bytes) + " of " +
                               std::to_string(memory.total_bytes) + " are free");
  }
  check(error, "cudaMalloc");
  allocated.fetch_add(1, std::memory_order_relaxed);
  return data;
}

int64_t allocations() { return allocated.load(std::memory_order_relaxed); }

void release(int index, void* data) {
  // Also called while the program ends, when the driver may be gone already.
  if (cudaSetDevice(index) == cudaSuccess) cudaFree(data);
  cudaGetLastError();
}

void* allocate_pinned(size_t bytes) {
  void* data = nullptr;
  SW_CUDA(cudaMallocHost(&data, bytes));
  return data;
}

void release_pinned(void* data) {
  cudaFreeHost(data);
  cudaGetLastError();
}

}  // namespace spillway::tensor::cuda
