// A build without CUDA: no stream of such a device can be opened, so nobody looks these up.
#include "kernels/cuda/operations.h"

namespace spillway::kernels::cuda {

Operations operations() { return {}; }

}  // namespace spillway::kernels::cuda
