// Context: what the CUDA operations keep beside a stream: the library's plans and the workspaces that outlive a launch.
// Made at the stream's first operation, gone with it; the stream's thread.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/encoder_products.h"
#include "kernels/cuda/gemm_cublaslt.h"
#include "tensor/stream.h"

namespace spillway::kernels::cuda {

class Context {
 public:
  static Context& of(tensor::Stream& stream);
  explicit Context(tensor::Device device);

  LtProducts& products() { return products_; }
  EpilogueProducts& epilogue_products() { return epilogue_products_; }
  void* products_workspace() const { return products_workspace_.view().data; }
  int capability() const { return capability_; }

  // For attention kernels: zeroed when allocated, left at zero by each launch. Grows before the first capture only;
  // what was outgrown stays, for captured steps point at it.
  void* attention_workspace(size_t bytes, cudaStream_t stream);

  // Zero between launches, for blocks that count one another: the router's, and those of the experts' products.
  unsigned* counter(cudaStream_t stream);
  unsigned* expert_counters(cudaStream_t stream) { return counter(stream) + 1; }

  // Room for a few rows that a product in a fixed shape is filled up with; as above, but for the zeros.
  void* rows_workspace(size_t bytes);

 private:
  tensor::Device device_;
  int capability_ = 0;
  LtProducts products_;
  EpilogueProducts epilogue_products_;
  tensor::Tensor products_workspace_;
  tensor::Tensor counter_;
  std::vector<tensor::Tensor> attention_workspaces_;
  std::vector<tensor::Tensor> rows_workspaces_;
};

inline cudaStream_t native(tensor::Stream& stream) { return static_cast<cudaStream_t>(stream.cuda_native()); }

Scalar scalar_of(tensor::DType dtype);

}  // namespace spillway::kernels::cuda
