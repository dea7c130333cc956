#include "kernels/cuda/attention_maps.h"

namespace spillway::kernels::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's function, found at run time so that nothing links against the driver.
Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
          cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<Encode>(found);
}

}  // namespace

bool make_rows_map(CUtensorMap* map, const RowsMap& r) {
  static const Encode encode = find_encode();
  if (encode == nullptr) return false;
  const CUtensorMapDataType type =
      r.dtype == tensor::DType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const cuuint64_t sizes[3] = {cuuint64_t(r.columns), cuuint64_t(r.rows), cuuint64_t(r.outer)};
  const cuuint64_t strides[2] = {cuuint64_t(r.row_stride), cuuint64_t(r.outer_stride)};
  const cuuint32_t box[3] = {64, cuuint32_t(r.box_rows), cuuint32_t(r.box_outer)};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(map, type, 3, const_cast<void*>(r.data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace spillway::kernels::cuda
