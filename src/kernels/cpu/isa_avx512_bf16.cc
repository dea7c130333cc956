// The CPU kernels for AVX-512 with BF16, VNNI and VBMI.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernels/cpu/kernel_table.h"

#if defined(__AVX512BF16__)
namespace spillway::kernels::cpu {
namespace {

// Each builds on those before it.
// clang-format off
#include "kernels/cpu/simd.inl"
#include "kernels/cpu/transpose.inl"
#include "kernels/cpu/tiles.inl"
#include "kernels/cpu/tile_ends.inl"
#include "kernels/cpu/int8.inl"
#include "kernels/cpu/quantize_panel.inl"
#include "kernels/cpu/bytes.inl"
#include "kernels/cpu/bf16.inl"
#include "kernels/cpu/rows.inl"
#include "kernels/cpu/encoder_rows.inl"
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/attention_rows.inl"
#include "kernels/cpu/sequence_attention.inl"
#include "kernels/cpu/fill_table.inl"
// clang-format on

}  // namespace

KernelTable avx512_bf16_kernels() { return fill_table(); }

}  // namespace spillway::kernels::cpu
#endif
