// Warpgroup products of sm_90a in the shapes that attention needs, for bf16 and f16 into float32. Operands in shared
// memory are rows of 128 bytes in the 128-byte swizzle, tiles aligned to 1,024 bytes, as tensor copies leave them.
//
// Of thread (warp w, lane l): d[i] is row 16 w + l / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (l % 4) + i % 2.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/gemm_ptx.cuh"

namespace spillway::kernels::cuda {

constexpr uint64_t kSwizzled128 = uint64_t{1} << 62;

// Rows along the product's inner dimension (queries, keys, probabilities); 16 further elements inside are 2 more.
__device__ __forceinline__ uint64_t inner_descriptor(uint32_t address) {
  return kSwizzled128 | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 16) | ((address & 0x3FFFF) >> 4);
}
// Values [tokens][64 columns], the inner dimension being tokens: 64 further columns lie chunk_bytes on; 16 further
// tokens are 128 more.
__device__ __forceinline__ uint64_t outer_descriptor(uint32_t address, uint32_t chunk_bytes) {
  return kSwizzled128 | (uint64_t{1024 >> 4} << 32) | (uint64_t{chunk_bytes >> 4} << 16) | ((address & 0x3FFFF) >> 4);
}

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of accumulators across products in flight.
template <int kCount>
__device__ __forceinline__ void hold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
// What ordinary stores have put into shared memory becomes visible to products and the copy engine.
__device__ __forceinline__ void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define SW_ACC4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define SW_ACC16(d, i) SW_ACC4(d, i), SW_ACC4(d, (i) + 4), SW_ACC4(d, (i) + 8), SW_ACC4(d, (i) + 12)
#define SW_ACC32(d) SW_ACC16(d, 0), SW_ACC16(d, 16)
#define SW_ACC64(d) SW_ACC32(d), SW_ACC16(d, 32), SW_ACC16(d, 48)

// d[64 x 64] = (add ? d : 0) + a[64 x 16] b[64 x 16]^T.
template <typename T>
__device__ __forceinline__ void product_n64(float (&d)[32], uint64_t a, uint64_t b, int add) {
#define SW_PRODUCT(type)                                                                                     \
  asm volatile(                                                                                              \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                           \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                            \
      " {"                                                                                                   \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"                                                     \
      "}, %32, %33, p, 1, 1, 0, 0;\n}"                                                                       \
      : SW_ACC32(d)                                                                                          \
      : "l"(a), "l"(b), "r"(add))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

#define SW_NAMES64                                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
  "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
  "%62, %63"

// d[64 x 128] = (add ? d : 0) + a[64 x 16] b[128 x 16]^T, both in shared memory.
template <typename T>
__device__ __forceinline__ void product_n128(float (&d)[64], uint64_t a, uint64_t b, int add) {
#define SW_PRODUCT(type)                                                                                            \
  asm volatile(                                                                                                     \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                                                  \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" SW_NAMES64 "}, %64, %65, p, 1, 1, 0, 0;\n}" \
      : SW_ACC64(d)                                                                                                 \
      : "l"(a), "l"(b), "r"(add))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

// As product_n64 and with b[16 x 64] as it lies (kTransposed), a in registers as mma.m16n8k16 has it.
template <typename T, bool kTransposed>
__device__ __forceinline__ void product_n64_of(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
#define SW_PRODUCT(type)                                                                                     \
  asm volatile(                                                                                              \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                                           \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                            \
      " {"                                                                                                   \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"                                                     \
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"                                                       \
      : SW_ACC32(d)                                                                                          \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(kTransposed ? 1 : 0))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

// d[64 x 64] = (add ? d : 0) + a[64 x 16] b[64 x 16]^T, a in registers.
template <typename T>
__device__ __forceinline__ void product_n64_rows(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  product_n64_of<T, false>(d, a, b, add);
}

// d[64 x 64] = (add ? d : 0) + a[64 x 16] b[16 x 64], a in registers.
template <typename T>
__device__ __forceinline__ void product_n64_values(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int add) {
  product_n64_of<T, true>(d, a, b, add);
}

// d[64 x 128] = (add ? d : 0) + a[64 x 16] b[16 x 128], a in registers as mma.m16n8k16 has it.
template <typename T>
__device__ __forceinline__ void product_n128_values(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int add) {
#define SW_PRODUCT(type)                                                           \
  asm volatile(                                                                    \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                 \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" SW_NAMES64 \
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"                               \
      : SW_ACC64(d)                                                                \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

#define SW_NAMES128                                                                                  \
  SW_NAMES64                                                                                         \
  ", "                                                                                               \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, "  \
  "%83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, "      \
  "%101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, " \
  "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// d[64 x 256] += a[64 x 16] b[16 x 256], b as it lies; d's halves are columns 0 to 127 and the rest. a in registers.
template <typename T>
__device__ __forceinline__ void product_n256_values(float (&d)[2][64], const uint32_t (&a)[4], uint64_t b) {
#define SW_PRODUCT(type)                                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" SW_NAMES128 \
               "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"                              \
               : SW_ACC64(d[0]), SW_ACC64(d[1])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

// The same with a in shared memory.
template <typename T>
__device__ __forceinline__ void product_n256_shared(float (&d)[2][64], uint64_t a, uint64_t b) {
#define SW_PRODUCT(type)                                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" SW_NAMES128 \
               "}, %128, %129, 1, 1, 1, 0, 1;"                                               \
               : SW_ACC64(d[0]), SW_ACC64(d[1])                                              \
               : "l"(a), "l"(b))
  if constexpr (std::is_same_v<T, __half>)
    SW_PRODUCT("f16");
  else
    SW_PRODUCT("bf16");
#undef SW_PRODUCT
}

#undef SW_NAMES128
#undef SW_NAMES64
#undef SW_ACC4
#undef SW_ACC16
#undef SW_ACC32
#undef SW_ACC64

}  // namespace spillway::kernels::cuda
