#include "kernels/cuda/gemm_cublaslt.h"

#include <cublasLt.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <sstream>
#include <tuple>
#include <vector>

namespace spillway::kernels::cuda {
namespace {

// Everything of a product that a plan depends on.
using Key =
    std::tuple<int, int, int, int, int64_t, int64_t, int, int, int, int, int, int64_t, int64_t, int64_t, size_t>;

Key key_of(const DenseProduct& p, size_t workspace_bytes) {
  return {static_cast<int>(p.compute),
          p.m,
          p.n,
          p.k,
          p.x_stride,
          p.y_stride,
          p.w_transposed,
          p.bias != nullptr,
          p.accumulate,
          static_cast<int>(p.y_type),
          p.batch,
          p.x_batch,
          p.w_batch,
          p.y_batch,
          workspace_bytes};
}

constexpr int kCandidates = 12;
constexpr size_t kFlushBytes = size_t{128} << 20;  // more than an L2 cache
constexpr int kExactRows = 256;                    // decode: every bucket is measured

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
  const bool made = make_operation(p, plan) &&
                    make_layout(&plan->w, input, p.w_transposed ? p.n : p.k, p.w_transposed ? p.k : p.n,
                                p.w_transposed ? p.n : p.k, p.batch, p.w_batch) &&
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

// What is measured once: prompts of any length share the algorithms of the next power of two.
std::string shape_name(const DenseProduct& p) {
  int rows = p.m;
  if (rows > kExactRows) {
    rows = 2 * kExactRows;
    while (rows < p.m) rows *= 2;
  }
  char text[160];
  std::snprintf(text, sizeof(text), "%d.%d.%d.%d.%d.%d.%d.%d", static_cast<int>(p.compute), rows, p.n, p.k,
                p.w_transposed, p.accumulate, static_cast<int>(p.y_type), p.batch);
  return text;
}

std::string to_text(const cublasLtMatmulAlgo_t& algorithm) {
  std::string text;
  char word[24];
  for (const auto part : algorithm.data) {
    std::snprintf(word, sizeof(word), " %016llx", static_cast<unsigned long long>(part));
    text += word;
  }
  return text;
}

// Device memory for as long as a measurement lasts.
struct Room {
  void* data = nullptr;
  explicit Room(size_t bytes) {
    if (cudaMalloc(&data, bytes) != cudaSuccess) {
      data = nullptr;
      cudaGetLastError();
    }
  }
  ~Room() { cudaFree(data); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
};

// Median seconds of a candidate, or a negative number where it fails.
double time_candidate(cublasLtHandle_t handle, const DenseProduct& p, const Plan& plan,
                      const cublasLtMatmulAlgo_t& algorithm, void* y, const Room& flush, void* workspace,
                      size_t workspace_bytes, cudaStream_t stream) {
  constexpr int kRuns = 5;
  cudaEvent_t begin = nullptr, end = nullptr;
  if (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess) return -1;
  const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
  std::vector<double> times;
  for (int run = 0; run <= kRuns; ++run) {
    cudaMemsetAsync(flush.data, run, kFlushBytes, stream);
    cudaEventRecord(begin, stream);
    const cublasStatus_t status = cublasLtMatmul(handle, plan.operation, &one, p.w, plan.w, p.x, plan.x, &beta, y,
                                                 plan.y, y, plan.y, &algorithm, workspace, workspace_bytes, stream);
    cudaEventRecord(end, stream);
    float ms = 0;
    if (status != CUBLAS_STATUS_SUCCESS || cudaEventSynchronize(end) != cudaSuccess ||
        cudaEventElapsedTime(&ms, begin, end) != cudaSuccess) {
      times.clear();
      break;
    }
    if (run > 0) times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  if (times.empty()) return -1;
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

std::vector<cublasLtMatmulHeuristicResult_t> candidates(cublasLtHandle_t handle, const Plan& plan,
                                                        size_t workspace_bytes) {
  std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
  cublasLtMatmulPreference_t preference = nullptr;
  int count = 0;
  if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return {};
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                       sizeof(workspace_bytes));
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, plan.operation, plan.w, plan.x, plan.y, plan.y,
                                                               preference, kCandidates, found.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  found.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(count) : 0);
  return found;
}

// Puts the fastest candidate in the plan; false where nothing could be measured.
bool measure_plan(cublasLtHandle_t handle, const DenseProduct& p, void* workspace, size_t workspace_bytes,
                  cudaStream_t stream, Plan* plan) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &capture) != cudaSuccess || capture != cudaStreamCaptureStatusNone) return false;
  const int64_t elements = (p.batch - 1) * p.y_batch + int64_t{p.m - 1} * p.y_stride + p.n;
  const size_t bytes = static_cast<size_t>(elements) * scalar_bytes(p.y_type);
  const Room y(bytes), flush(kFlushBytes);
  if (y.data == nullptr || flush.data == nullptr || cudaMemsetAsync(y.data, 0, bytes, stream) != cudaSuccess)
    return false;
  double fastest = -1;
  for (const auto& candidate : candidates(handle, *plan, workspace_bytes)) {
    const double time =
        time_candidate(handle, p, *plan, candidate.algo, y.data, flush, workspace, workspace_bytes, stream);
    if (time < 0 || (fastest >= 0 && time >= fastest)) continue;
    fastest = time;
    plan->algorithm = candidate.algo;
  }
  return fastest >= 0;
}

}  // namespace

struct LtProducts::State {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
  std::map<std::string, cublasLtMatmulAlgo_t> known;  // by shape_name
  bool measures = false;

  // The heuristic's plan, with a measured algorithm in place of its own where there is or can be one.
  void prepare(const DenseProduct& p, void* workspace, size_t workspace_bytes, cudaStream_t stream, Plan* plan) {
    if (!make_plan(handle, p, workspace_bytes, plan)) return;
    const auto found = known.find(shape_name(p));
    if (found != known.end()) {
      cublasLtMatmulHeuristicResult_t check = {};
      if (cublasLtMatmulAlgoCheck(handle, plan->operation, plan->w, plan->x, plan->y, plan->y, &found->second,
                                  &check) == CUBLAS_STATUS_SUCCESS &&
          check.workspaceSize <= workspace_bytes) {
        plan->algorithm = found->second;
      }
    } else if (measures && measure_plan(handle, p, workspace, workspace_bytes, stream, plan)) {
      known[shape_name(p)] = plan->algorithm;
    }
  }

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
  if (fresh) state_->prepare(p, workspace, workspace_bytes, stream, &plan);
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

void LtProducts::measure(bool wanted) { state_->measures = wanted; }

void LtProducts::remember(const std::string& lines) {
  std::istringstream text(lines);
  std::string line;
  while (std::getline(text, line)) {
    std::istringstream words(line);
    std::string name;
    cublasLtMatmulAlgo_t algorithm = {};
    words >> name >> std::hex;
    bool whole = !name.empty();
    for (auto& part : algorithm.data) whole = static_cast<bool>(words >> part) && whole;
    if (whole) state_->known[name] = algorithm;
  }
}

std::string LtProducts::learned() const {
  std::string text;
  for (const auto& [name, algorithm] : state_->known) text += name + to_text(algorithm) + "\n";
  return text;
}

}  // namespace spillway::kernels::cuda
