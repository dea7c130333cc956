// The CPU kernels for any CPU (the compiler's baseline).

#include "kernels/cpu/kernel_table.h"

namespace spillway::kernels::cpu {
namespace {

// Each builds on those before it.
// clang-format off
#include "kernels/cpu/simd.inl"
#include "kernels/cpu/tiles.inl"
#include "kernels/cpu/tile_ends.inl"
#include "kernels/cpu/int8.inl"
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

KernelTable scalar_kernels() { return fill_table(); }

}  // namespace spillway::kernels::cpu
