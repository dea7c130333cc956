// The CPU kernels of avx512_bf16 with products by AMX tiles.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernels/cpu/kernel_table.h"

#if defined(__AVX512BF16__)
namespace spillway::kernels::cpu {
namespace {

#include "kernels/cpu/simd.inl"
#include "kernels/cpu/tile_ends.inl"

// The compiler's intrinsics do not say which memory they read and write.
struct TileConfig;
SW_INLINE void configure(const TileConfig& config) { __asm__ volatile("ldtilecfg (%0)" : : "r"(&config) : "memory"); }
template <int T>
SW_INLINE void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
}
template <int T>
SW_INLINE void load_tile(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
SW_INLINE void store_tile(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}
template <int C, int A, int B>
SW_INLINE void multiply_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
SW_INLINE void multiply_bytes() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

#include "kernels/cpu/amx.inl"

}  // namespace

KernelTable amx_kernels() { return tile_kernels(); }

}  // namespace spillway::kernels::cpu
#endif
