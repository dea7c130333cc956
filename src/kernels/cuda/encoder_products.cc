#include "kernels/cuda/encoder_products.h"

#include <cublasLt.h>

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <vector>

namespace spillway::kernels::cuda {
namespace {

constexpr int kCandidates = 24;  // algorithms that are asked for; the library has named eight
constexpr int kTimedRuns = 3, kFinalRuns = 12;
constexpr int kFinalRounds = 2;
constexpr size_t kFinalists = 6;
constexpr int kOwnTuningRowsMax = 512;  // above, sizes within a factor of two share an algorithm

// Everything of a product that its plan depends on, m apart.
using Kind = std::tuple<int, int, int, int, int64_t, int64_t, int64_t, bool, int, int, bool, bool>;

Kind kind_of(const EpilogueProduct& p) {
  return {int(p.type),
          int(p.y_type),
          p.n,
          p.k,
          p.x_stride,
          p.w_stride,
          p.y_stride,
          p.bias != nullptr,
          int(p.bias_type),
          int(p.activation),
          p.c != nullptr,
          p.y_scale != nullptr};
}

cudaDataType data_type(LtType type) {
  switch (type) {
    case LtType::kBf16:
      return CUDA_R_16BF;
    case LtType::kF16:
      return CUDA_R_16F;
    case LtType::kE4M3:
      return CUDA_R_8F_E4M3;
    default:
      return CUDA_R_32F;
  }
}

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, c = nullptr, y = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  bool found = false;
  bool measured = false;
};

void destroy(Plan& plan) {
  if (plan.operation != nullptr) cublasLtMatmulDescDestroy(plan.operation);
  for (cublasLtMatrixLayout_t layout : {plan.w, plan.x, plan.c, plan.y}) {
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
}

cublasLtEpilogue_t epilogue_of(const EpilogueProduct& p) {
  const bool bias = p.bias != nullptr;
  switch (p.activation) {
    case Activation::kRelu:
      return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case Activation::kGeluTanh:
      return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default:
      return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

template <class T>
bool set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  return cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
}

template <class T>
bool set(cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute, const T& value) {
  return cublasLtMatmulAlgoConfigSetAttribute(&algorithm, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
}

cublasComputeType_t compute_type(const EpilogueProduct& p) {
  return p.type == LtType::kTf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

// What is added to an e4m3 result is wider.
LtType c_type(const EpilogueProduct& p) { return p.y_type == LtType::kE4M3 ? LtType::kF16 : p.y_type; }

// Pointers that the description holds.
bool set_pointers(const EpilogueProduct& p, cublasLtMatmulDesc_t operation) {
  if (p.bias != nullptr && !set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias)) return false;
  return p.y_scale == nullptr || set(operation, CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, p.y_scale);
}

// Column-major as cuBLASLt sees it: y^T [n, m] = W x^T.
bool describe(const EpilogueProduct& p, Plan& plan) {
  if (cublasLtMatmulDescCreate(&plan.operation, compute_type(p), CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  bool fine = set(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T) &&
              set(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p)) && set_pointers(p, plan.operation);
  if (p.bias != nullptr)
    fine = fine && set(plan.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(data_type(p.bias_type)));
  if (p.type == LtType::kE4M3) fine = fine && set(plan.operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
  const auto layout = [](cublasLtMatrixLayout_t* to, LtType type, int rows, int columns, int64_t stride) {
    return cublasLtMatrixLayoutCreate(to, data_type(type), uint64_t(rows), uint64_t(columns), stride) ==
           CUBLAS_STATUS_SUCCESS;
  };
  return fine && layout(&plan.w, p.type, p.k, p.n, p.w_stride) && layout(&plan.x, p.type, p.k, p.m, p.x_stride) &&
         layout(&plan.c, c_type(p), p.n, p.m, p.y_stride) && layout(&plan.y, p.y_type, p.n, p.m, p.y_stride);
}

bool recording(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess || status != cudaStreamCaptureStatusNone;
}

}  // namespace

struct EpilogueProducts::State {
  cublasLtHandle_t handle = nullptr;
  std::map<Kind, std::map<int, Plan>> plans;  // by m

  ~State() {
    for (auto& [kind, by_rows] : plans) {
      for (auto& [m, plan] : by_rows) destroy(plan);
    }
    if (handle != nullptr) cublasLtDestroy(handle);
  }

  cublasStatus_t launch(const EpilogueProduct& p, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                        void* workspace, cudaStream_t stream) const {
    const float beta = p.c != nullptr ? 1.0f : 0.0f;
    const void* c = p.c != nullptr ? p.c : p.y_type == LtType::kE4M3 ? nullptr : p.y;
    return cublasLtMatmul(handle, plan.operation, &p.alpha, p.w, plan.w, p.x, plan.x, &beta, c, plan.c, p.y, plan.y,
                          &algorithm, workspace, kWorkspaceBytes, stream);
  }

  // The library's own list, its first choice first, then what that leaves out.
  std::vector<cublasLtMatmulAlgo_t> candidates(const EpilogueProduct& p, const Plan& plan) const {
    const auto named = heuristics(plan);
    std::vector<cublasLtMatmulAlgo_t> all;
    for (const auto& result : named) all.push_back(result.algo);
    if (!named.empty()) add_variants(p, plan, named[0].algo, all);
    return all;
  }

  // Of eight tiles that the library names none may be the fastest: on an H200 these shapes of the same algorithm, which
  // it does not name, took 4 to 15% less of BERT-large's products (NOTES-encoders.md).
  void add_variants(const EpilogueProduct& p, const Plan& plan, const cublasLtMatmulAlgo_t& named,
                    std::vector<cublasLtMatmulAlgo_t>& all) const {
    int id = 0;
    size_t bytes = 0;
    cublasLtMatmulAlgo_t base;
    if (cublasLtMatmulAlgoConfigGetAttribute(&named, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof(id), &bytes) !=
            CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulAlgoInit(handle, compute_type(p), CUDA_R_32F, data_type(p.type), data_type(p.type),
                               data_type(c_type(p)), data_type(p.y_type), id, &base) != CUBLAS_STATUS_SUCCESS)
      return;
    uint32_t stages = 0;  // where the algorithm has but one
    cublasLtMatmulAlgoCapGetAttribute(&base, CUBLASLT_ALGO_CAP_STAGES_IDS, &stages, sizeof(stages), &bytes);
    for (const uint32_t tile : {CUBLASLT_MATMUL_TILE_128x160, CUBLASLT_MATMUL_TILE_128x128}) {
      for (const uint16_t cluster : {CUBLASLT_CLUSTER_SHAPE_2x1x1, CUBLASLT_CLUSTER_SHAPE_1x2x1}) {
        for (const uint32_t option : {1, 3}) {
          for (const uint32_t swizzled : {0, 1}) {
            cublasLtMatmulAlgo_t variant = base;
            if (set(variant, CUBLASLT_ALGO_CONFIG_TILE_ID, tile) &&
                (stages == 0 || set(variant, CUBLASLT_ALGO_CONFIG_STAGES_ID, stages)) &&
                set(variant, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, cluster) &&
                set(variant, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, option) &&
                set(variant, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, swizzled) && fits(plan, variant))
              all.push_back(variant);
          }
        }
      }
    }
  }

  bool fits(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm) const {
    cublasLtMatmulHeuristicResult_t result = {};
    return cublasLtMatmulAlgoCheck(handle, plan.operation, plan.w, plan.x, plan.c, plan.y, &algorithm, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= kWorkspaceBytes;
  }

  std::vector<cublasLtMatmulHeuristicResult_t> heuristics(const Plan& plan) const {
    std::vector<cublasLtMatmulHeuristicResult_t> list(kCandidates);
    cublasLtMatmulPreference_t preference = nullptr;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return {};
    const size_t workspace_bytes = kWorkspaceBytes;
    int count = 0;
    const bool fine =
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                             sizeof(workspace_bytes)) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulAlgoGetHeuristic(handle, plan.operation, plan.w, plan.x, plan.c, plan.y, preference, kCandidates,
                                       list.data(), &count) == CUBLAS_STATUS_SUCCESS;
    cublasLtMatmulPreferenceDestroy(preference);
    list.resize(fine ? size_t(count) : 0);
    std::erase_if(list, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
    return list;
  }

  // Milliseconds of the fastest run; negative: it failed.
  float time(const EpilogueProduct& p, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
             cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end, int runs) const {
    float best = -1;
    for (int i = 0; i <= runs; ++i) {
      cudaEventRecord(begin, stream);
      if (launch(p, plan, algorithm, workspace, stream) != CUBLAS_STATUS_SUCCESS) return -1;
      cudaEventRecord(end, stream);
      float took = 0;
      if (cudaEventSynchronize(end) != cudaSuccess || cudaEventElapsedTime(&took, begin, end) != cudaSuccess) return -1;
      if (i > 0) best = best < 0 ? took : std::min(best, took);
    }
    return best;
  }

  // Milliseconds of kFinalRuns in a row.
  float run_of(const EpilogueProduct& p, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
               cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end) const {
    cudaEventRecord(begin, stream);
    for (int i = 0; i < kFinalRuns; ++i) launch(p, plan, algorithm, workspace, stream);
    cudaEventRecord(end, stream);
    float took = 0;
    const bool timed =
        cudaEventSynchronize(end) == cudaSuccess && cudaEventElapsedTime(&took, begin, end) == cudaSuccess;
    return timed ? took : std::numeric_limits<float>::infinity();
  }

  // The algorithm of a measured size close by, where it also fits this one.
  bool borrow(const std::map<int, Plan>& by_rows, int m, Plan& plan) const {
    if (m <= kOwnTuningRowsMax) return false;
    const Plan* nearest = nullptr;
    double distance = 2;
    for (const auto& [rows, other] : by_rows) {
      const double ratio = rows > m ? double(rows) / m : double(m) / rows;
      if (!other.measured || rows <= kOwnTuningRowsMax || ratio >= distance) continue;
      nearest = &other;
      distance = ratio;
    }
    if (nearest == nullptr || !fits(plan, nearest->algorithm)) return false;
    plan.algorithm = nearest->algorithm;
    return plan.found = true;
  }

  void choose(const EpilogueProduct& p, Plan& plan, void* workspace, cudaStream_t stream) const {
    const std::vector<cublasLtMatmulAlgo_t> list = candidates(p, plan);
    if (list.empty()) return;
    plan.algorithm = list[0];
    plan.found = true;
    if (recording(stream)) return;
    cudaEvent_t begin = nullptr, end = nullptr;
    if (cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
      // The fastest of a few runs each, then the nearest of those again, many in a row and by turns: that is how they
      // will run, at the clock that the card's power allows.
      std::vector<std::pair<float, size_t>> times;
      for (size_t i = 0; i < list.size(); ++i) {
        const float took = time(p, plan, list[i], workspace, stream, begin, end, kTimedRuns);
        if (took >= 0) times.emplace_back(took, i);
      }
      std::sort(times.begin(), times.end());
      if (times.size() > kFinalists) times.resize(kFinalists);
      for (auto& [took, i] : times) took = 0;
      for (int round = 0; round < kFinalRounds; ++round) {
        for (auto& [took, i] : times) took += run_of(p, plan, list[i], workspace, stream, begin, end);
      }
      plan.measured = !times.empty();
      if (plan.measured) plan.algorithm = list[std::min_element(times.begin(), times.end())->second];
    }
    if (begin != nullptr) cudaEventDestroy(begin);
    if (end != nullptr) cudaEventDestroy(end);
    cudaGetLastError();  // of candidates that failed
  }
};

EpilogueProducts::EpilogueProducts() : state_(std::make_unique<State>()) {}
EpilogueProducts::~EpilogueProducts() = default;

cudaError_t EpilogueProducts::run(const EpilogueProduct& p, void* workspace, cudaStream_t stream) {
  if (p.m < 1 || p.n < 1 || p.k < 1) return cudaErrorInvalidValue;
  if (state_->handle == nullptr && cublasLtCreate(&state_->handle) != CUBLAS_STATUS_SUCCESS) return cudaErrorUnknown;
  auto& by_rows = state_->plans[kind_of(p)];
  auto [entry, fresh] = by_rows.try_emplace(p.m);
  Plan& plan = entry->second;
  if (fresh && describe(p, plan) && !state_->borrow(by_rows, p.m, plan)) state_->choose(p, plan, workspace, stream);
  if (!plan.found) return cudaErrorNotSupported;
  if (!set_pointers(p, plan.operation)) return cudaErrorUnknown;
  return state_->launch(p, plan, plan.algorithm, workspace, stream) == CUBLAS_STATUS_SUCCESS ? cudaGetLastError()
                                                                                             : cudaErrorUnknown;
}

}  // namespace spillway::kernels::cuda
