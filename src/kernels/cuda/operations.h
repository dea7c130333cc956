// CUDA's implementations of the contracts in kernels/*.h. Empty in a build without CUDA (kernels/no_cuda.cc).
#pragma once

#include "kernels/operations.h"

namespace spillway::kernels::cuda {

Operations operations();

}  // namespace spillway::kernels::cuda
