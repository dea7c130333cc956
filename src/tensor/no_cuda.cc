// What tensor/cuda/cuda.h says in a build without CUDA.
#include "tensor/cuda/cuda.h"

namespace spillway::tensor::cuda {
namespace {

constexpr const char* kAbsent = "a CUDA device in a build without CUDA";

}  // namespace

std::string built_for() { return ""; }
int device_count() { return 0; }

Status check_device(int index) {
  return unsupported("device cuda:" + std::to_string(index) +
                     ": this build has no CUDA kernels; build with `cmake --preset cuda`, or use device \"cpu\" or "
                     "\"auto\"");
}

const DeviceInfo& device_info(int) { SW_CHECK(false, kAbsent); }
MemoryInfo memory_info(int) { SW_CHECK(false, kAbsent); }
void* allocate(int, size_t) { SW_CHECK(false, kAbsent); }
int64_t allocations() { return 0; }
void release(int, void*) { SW_CHECK(false, kAbsent); }
void* allocate_pinned(size_t) { SW_CHECK(false, kAbsent); }
void release_pinned(void*) { SW_CHECK(false, kAbsent); }
std::unique_ptr<DeviceStream> DeviceStream::open(int) { SW_CHECK(false, kAbsent); }

}  // namespace spillway::tensor::cuda
