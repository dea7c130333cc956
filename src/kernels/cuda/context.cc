#include "kernels/cuda/context.h"

#include "kernels/cuda/gemm_fp8_few_rows.h"
#include "tensor/cuda/cuda.h"
#include "tensor/cuda/error.h"

namespace spillway::kernels::cuda {

Context::Context(tensor::Device device)
    : device_(device),
      capability_(tensor::cuda::device_info(device.index).capability()),
      products_workspace_(tensor::DType::kU8, {int64_t(LtProducts::kWorkspaceBytes)}, device) {}

Context& Context::of(tensor::Stream& stream) {
  std::shared_ptr<void>& kept = stream.cuda().attachment();
  if (!kept) kept = std::make_shared<Context>(stream.device());
  return *static_cast<Context*>(kept.get());
}

void* Context::attention_workspace(size_t bytes, cudaStream_t stream) {
  if (attention_workspaces_.empty() || attention_workspaces_.back().bytes() < bytes) {
    attention_workspaces_.emplace_back(tensor::DType::kU8, tensor::Shape{int64_t(bytes)}, device_);
    SW_CUDA(cudaMemsetAsync(attention_workspaces_.back().view().data, 0, bytes, stream));
  }
  return attention_workspaces_.back().view().data;
}

unsigned* Context::counter(cudaStream_t stream) {
  if (counter_.empty()) {
    counter_ = tensor::Tensor(tensor::DType::kI32, {1 + kFewRowsCounters}, device_);
    SW_CUDA(cudaMemsetAsync(counter_.view().data, 0, counter_.bytes(), stream));
  }
  return reinterpret_cast<unsigned*>(counter_.view().data);
}

void* Context::rows_workspace(size_t bytes) {
  if (rows_workspaces_.empty() || rows_workspaces_.back().bytes() < bytes) {
    rows_workspaces_.emplace_back(tensor::DType::kU8, tensor::Shape{int64_t(bytes)}, device_);
  }
  return rows_workspaces_.back().view().data;
}

Scalar scalar_of(tensor::DType dtype) {
  switch (dtype) {
    case tensor::DType::kF32:
      return Scalar::kF32;
    case tensor::DType::kBF16:
      return Scalar::kBf16;
    case tensor::DType::kF16:
      return Scalar::kF16;
    default:
      SW_CHECK(false, "activations are f32, bf16 or f16");
  }
}

}  // namespace spillway::kernels::cuda
