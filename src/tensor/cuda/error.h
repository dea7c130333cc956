// Every CUDA call goes through check(): an error is thrown with the call's place, for the engine ends the requests of a
// step that failed and goes on. Only for files that include CUDA's headers.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace spillway::tensor::cuda {

struct CudaError : std::runtime_error {
  CudaError(cudaError_t code_in, const std::string& what) : std::runtime_error(what), code(code_in) {}
  cudaError_t code;
};

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call should not see it again
  throw CudaError(error,
                  std::string("CUDA: ") + what + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

// After each launch.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace spillway::tensor::cuda

#define SW_CUDA(call) ::spillway::tensor::cuda::check((call), #call)
