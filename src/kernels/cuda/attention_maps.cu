#include "kernels/cuda/attention_maps.h"
#include "kernels/cuda/tensor_map_encoder.h"

namespace spillway::kernels::cuda {

bool make_rows_map(CUtensorMap* map, const RowsMap& r) {
  static const TensorMapEncoder encode = find_tensor_map_encoder();
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
