// The kernels of AMX with the tile unit's instructions in plain code, as Intel's manual defines them: so that machines
// without it test what lies around them. Slow; chosen only by name.
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "kernels/cpu/kernel_table.h"

#if defined(__AVX512BF16__)
namespace spillway::kernels::cpu {
namespace {

#include "kernels/cpu/simd.inl"
#include "kernels/cpu/tile_ends.inl"

struct EmulatedTile {
  alignas(64) uint8_t data[16][64];
  int rows, row_bytes;
};
thread_local EmulatedTile tiles[8];

template <class Config>
void configure(const Config& config) {
  for (int t = 0; t < 8; ++t) {
    __builtin_memset(tiles[t].data, 0, sizeof(tiles[t].data));
    tiles[t].rows = config.rows[t];
    tiles[t].row_bytes = config.row_bytes[t];
  }
}
// The instructions fault where a tile has no rows, or where shapes do not fit.
SW_INLINE void expect(bool holds) {
  if (!holds) __builtin_trap();
}
template <int T>
void zero_tile() {
  expect(tiles[T].rows > 0);
  __builtin_memset(tiles[T].data, 0, sizeof(tiles[T].data));
}
template <int T>
void load_tile(const void* from, int64_t stride) {
  expect(tiles[T].rows > 0);
  __builtin_memset(tiles[T].data, 0, sizeof(tiles[T].data));
  for (int r = 0; r < tiles[T].rows; ++r)
    __builtin_memcpy(tiles[T].data[r], (const char*)from + r * stride, (size_t)tiles[T].row_bytes);
}
template <int T>
void store_tile(void* to, int64_t stride) {
  expect(tiles[T].rows > 0);
  for (int r = 0; r < tiles[T].rows; ++r)
    __builtin_memcpy((char*)to + r * stride, tiles[T].data[r], (size_t)tiles[T].row_bytes);
}

SW_INLINE float half(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  __builtin_memcpy(&value, &wide, 4);
  return value;
}
template <int C, int A, int B>
void multiply_bf16() {
  expect(tiles[A].rows == tiles[C].rows && tiles[A].row_bytes == 4 * tiles[B].rows &&
         tiles[B].row_bytes == tiles[C].row_bytes);
  for (int m = 0; m < tiles[C].rows; ++m) {
    float even[16] = {}, odd[16] = {}, sums[16];
    for (int k = 0; k < tiles[B].rows; ++k) {
      uint16_t a[2], b[32];
      __builtin_memcpy(a, tiles[A].data[m] + 4 * k, sizeof(a));
      __builtin_memcpy(b, tiles[B].data[k], sizeof(b));
      for (int n = 0; n < 16; ++n) {
        even[n] += half(a[0]) * half(b[2 * n]);
        odd[n] += half(a[1]) * half(b[2 * n + 1]);
      }
    }
    __builtin_memcpy(sums, tiles[C].data[m], sizeof(sums));
    for (int n = 0; n < 16; ++n) sums[n] += even[n] + odd[n];
    __builtin_memcpy(tiles[C].data[m], sums, sizeof(sums));
  }
}
template <int C, int A, int B>
void multiply_bytes() {
  expect(tiles[A].rows == tiles[C].rows && tiles[A].row_bytes == 4 * tiles[B].rows &&
         tiles[B].row_bytes == tiles[C].row_bytes);
  for (int m = 0; m < tiles[C].rows; ++m) {
    int32_t sums[16];
    __builtin_memcpy(sums, tiles[C].data[m], sizeof(sums));
    for (int k = 0; k < tiles[B].rows; ++k) {
      for (int n = 0; n < 16; ++n) {
        for (int i = 0; i < 4; ++i)
          sums[n] += (int8_t)tiles[A].data[m][4 * k + i] * (int32_t)tiles[B].data[k][4 * n + i];
      }
    }
    __builtin_memcpy(tiles[C].data[m], sums, sizeof(sums));
  }
}

#include "kernels/cpu/amx.inl"

}  // namespace

KernelTable amx_emulated_kernels() { return tile_kernels(); }

}  // namespace spillway::kernels::cpu
#endif
