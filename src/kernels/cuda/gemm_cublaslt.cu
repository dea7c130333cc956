#include "kernels/cuda/gemm_cublaslt.h"

#include <cublasLt.h>

#include <map>
#include <tuple>

namespace spillway::kernels::cuda {
namespace {

// Everything of a product that a plan depends on.
using Key = std::tuple<int, int, int, int, int64_t, int64_t, int, int, int, int, int, int64_t, int64_t, int64_t, size_t>;

Key key_of(const DenseProduct& p, size_t workspace_bytes) {
  return {static_cast<int>(p.compute), p.m, p.n, p.k, p.x_stride, p.y_stride, p.w_transposed, p.bias != nullptr,
          p.accumulate, static_cast<int>(p.y_type), p.batch, p.x_batch, p.w_batch, p.y_batch, workspace_bytes};
}

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  bool found = false;
};

cudaDataType data_type(Scalar type) {
  return type == Scalar::kF32 ? CUDA_R_32F : type == Scalar::kBf16 ? CUDA_R_16BF : CUDA_R_16F;
}
cudaDataType input_type(DenseCompute compute) {
  return compute == DenseCompute::kBf16  ? CUDA_R_16BF
         : compute == DenseCompute::kF16 ? CUDA_R_16F
         : compute == DenseCompute::kFp8 ? CUDA_R_8F_E4M3
                                         : CUDA_R_32F;
}

// Column-major as cuBLASLt sees it: y^T [n, m] = W x^T.
bool make_layout(cublasLtMatrixLayout_t* layout, cudaDataType type, int64_t rows, int64_t columns, int64_t stride,
                 int batch, int64_t batch_stride) {
  if (cublasLtMatrixLayoutCreate(layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), stride) !=
      CUBLAS_STATUS_SUCCESS) {
    return false;
  }
  if (batch <= 1) return true;
  return cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                          sizeof(batch_stride)) == CUBLAS_STATUS_SUCCESS;
}

#if CUBLAS_VERSION >= 120900
template <typename Set>
bool set_scale_modes(const Set& set, const DenseProduct& p) {
  const int32_t blocks = CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F, rows = CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F;
  return set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &blocks, sizeof(blocks)) &&
         set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &rows, sizeof(rows)) &&
         set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p.w_scales, sizeof(p.w_scales)) &&
         set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p.x_scales, sizeof(p.x_scales));
}
#else  // before the library's scales by blocks
template <typename Set>
bool set_scale_modes(const Set&, const DenseProduct&) {
  return false;
}
#endif

bool make_operation(const DenseProduct& p, Plan* plan) {
  const cublasComputeType_t compute =
      p.compute == DenseCompute::kTf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  if (cublasLtMatmulDescCreate(&plan->operation, compute, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  const cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const void* value, size_t bytes) {
    return cublasLtMatmulDescSetAttribute(plan->operation, attribute, value, bytes) == CUBLAS_STATUS_SUCCESS;
  };
  if (!set(CUBLASLT_MATMUL_DESC_TRANSA, p.w_transposed ? &plain : &transposed, sizeof(plain))) return false;
  if (p.compute == DenseCompute::kFp8 && !set_scale_modes(set, p)) return false;
  if (p.bias == nullptr) return true;
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const int32_t type = data_type(p.y_type);
  return set(CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)) &&
         set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof(p.bias)) &&
         set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof(type));
}

void destroy(Plan* plan) {
  if (plan->operation != nullptr) cublasLtMatmulDescDestroy(plan->operation);
  for (cublasLtMatrixLayout_t layout : {plan->w, plan->x, plan->y}) {
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
}

bool make_plan(cublasLtHandle_t handle, const DenseProduct& p, size_t workspace_bytes, Plan* plan) {
  const cudaDataType input = input_type(p.compute), output = data_type(p.y_type);
  const bool made =
      make_operation(p, plan) &&
      make_layout(&plan->w, input, p.w_transposed ? p.n : p.k, p.w_transposed ? p.k : p.n, p.w_transposed ? p.n : p.k,
                  p.batch, p.w_batch) &&
      make_layout(&plan->x, input, p.k, p.m, p.x_stride, p.batch, p.x_batch) &&
      make_layout(&plan->y, output, p.n, p.m, p.y_stride, p.batch, p.y_batch);
  if (!made) return false;
  cublasLtMatmulPreference_t preference = nullptr;
  if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return false;
  cublasLtMatmulHeuristicResult_t result = {};
  int count = 0;
  const bool found =
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                           sizeof(workspace_bytes)) == CUBLAS_STATUS_SUCCESS &&
      cublasLtMatmulAlgoGetHeuristic(handle, plan->operation, plan->w, plan->x, plan->y, plan->y, preference, 1,
                                     &result, &count) == CUBLAS_STATUS_SUCCESS &&
      count > 0;
  cublasLtMatmulPreferenceDestroy(preference);
  plan->algorithm = result.algo;
  plan->found = found;
  return found;
}

}  // namespace

struct LtProducts::State {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;

  ~State() {
    for (auto& [key, plan] : plans) destroy(&plan);
    if (handle != nullptr) cublasLtDestroy(handle);
  }
};

LtProducts::LtProducts() : state_(std::make_unique<State>()) {}
LtProducts::~LtProducts() = default;
LtProducts::LtProducts(LtProducts&&) noexcept = default;
LtProducts& LtProducts::operator=(LtProducts&&) noexcept = default;

cudaError_t LtProducts::run(const DenseProduct& p, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  if (p.m < 1 || p.n < 1 || p.k < 1 || p.batch < 1) return cudaErrorInvalidValue;
  if (state_->handle == nullptr && cublasLtCreate(&state_->handle) != CUBLAS_STATUS_SUCCESS) return cudaErrorUnknown;
  auto [entry, fresh] = state_->plans.try_emplace(key_of(p, workspace_bytes));
  Plan& plan = entry->second;
  if (fresh) make_plan(state_->handle, p, workspace_bytes, &plan);
  if (!plan.found) return cudaErrorNotSupported;
  if (p.bias != nullptr && cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias,
                                                          sizeof(p.bias)) != CUBLAS_STATUS_SUCCESS) {
    return cudaErrorUnknown;
  }
  if (p.compute == DenseCompute::kFp8 &&
      (cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p.w_scales,
                                      sizeof(p.w_scales)) != CUBLAS_STATUS_SUCCESS ||
       cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p.x_scales,
                                      sizeof(p.x_scales)) != CUBLAS_STATUS_SUCCESS)) {
    return cudaErrorUnknown;
  }
  const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      cublasLtMatmul(state_->handle, plan.operation, &one, p.w, plan.w, p.x, plan.x, &beta, p.y, plan.y, p.y, plan.y,
                     &plan.algorithm, workspace, workspace_bytes, stream);
  return status == CUBLAS_STATUS_SUCCESS ? cudaGetLastError() : cudaErrorUnknown;
}

}  // namespace spillway::kernels::cuda
