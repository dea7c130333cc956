// The vector vocabulary of one instruction set, over the compiler's vector types. Included inside the unnamed namespace
// of each cpu/isa_*.cc; uses no library function, so that nothing of it can be shared between instruction sets.

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kRowsF32 = 12;  // rows of a register tile two vectors wide
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRowsF32 = 6;
#else
constexpr int kLanes = 4;
constexpr int kRowsF32 = 4;
#endif

typedef float V __attribute__((vector_size(4 * kLanes)));
typedef int32_t VI __attribute__((vector_size(4 * kLanes)));
typedef uint32_t VU __attribute__((vector_size(4 * kLanes)));
typedef uint16_t VH __attribute__((vector_size(2 * kLanes)));

#define SW_INLINE inline __attribute__((always_inline))

SW_INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
SW_INLINE void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof(v)); }
SW_INLINE V splat(float x) { return V{} + x; }

SW_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
  return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Half as many lanes, where the CPU runs two such operations in the time of a whole one.
#if defined(__AVX512F__)
typedef float HalfV __attribute__((vector_size(32)));
SW_INLINE HalfV fma(HalfV a, HalfV b, HalfV c) { return (HalfV)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
typedef V HalfV;
#endif

SW_INLINE V vmax(V a, V b) { return a > b ? a : b; }

SW_INLINE V from_bits(VU bits) { return (V)bits; }
SW_INLINE V load(const uint16_t* bf16) {
  VH h;
  __builtin_memcpy(&h, bf16, sizeof(h));
  return from_bits(__builtin_convertvector(h, VU) << 16);
}

SW_INLINE V load_f16(const uint16_t* p) {
#if defined(__AVX512F__)
  return (V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__AVX2__)
  return (V)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
#else
  VH h;
  __builtin_memcpy(&h, p, sizeof(h));
  const VU bits = __builtin_convertvector(h, VU);
  const V scaled = from_bits((bits & 0x7fff) << 13) * 0x1p112f;
  const VU magnitude = (bits & 0x7c00) == 0x7c00 ? ((bits & 0x3ff) << 13) | 0x7f800000u : (VU)scaled;
  return from_bits(magnitude | ((bits & 0x8000) << 16));
#endif
}

// Round to nearest even, as bf16 in the low halves. NaN stays NaN.
SW_INLINE VU bf16_bits(V x) {
  const VU bits = (VU)x;
  const VU rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (VU)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 64 : rounded);
}

SW_INLINE float sum(V v) {
#if defined(__AVX512F__)
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  __m128 quarter = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
#else
  const V quarter = v;
#endif
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

SW_INLINE float largest(V v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#endif
  float best = v[0];
  for (int i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

// e^x within 2 units in the last place; exactly 0 below -87.3 (so that masked scores vanish).
SW_INLINE V exponential(V x) {
  const V low = splat(-87.3f);
  const V clamped = vmax(x > 88.7f ? splat(88.7f) : x, low);
  const V shifted = fma(clamped, splat(1.44269504f), splat(12582912.0f));
  const V n = shifted - 12582912.0f;
  V r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  V p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + 1.0f);
  const VI exponent = ((VI)shifted - 0x4b400000 + 127) << 23;
  return x < low ? V{} : p * (V)exponent;
}

// The same operation on whole vectors and, through a padded copy, on the tail.
template <class Operation>
SW_INLINE void for_each_vector(int64_t count, Operation operation) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) operation(i, kLanes);
  if (i < count) operation(i, (int)(count - i));
}
SW_INLINE V load_some(const float* p, int lanes) {
  if (lanes == kLanes) return load(p);
  V v = {};
  for (int i = 0; i < lanes; ++i) v[i] = p[i];
  return v;
}
SW_INLINE void store_some(float* p, V v, int lanes) {
  if (lanes == kLanes) return store(p, v);
  for (int i = 0; i < lanes; ++i) p[i] = v[i];
}

// What a tile's sums at a go on from.
SW_INLINE V sums_before(const Tile& t, const float* a) { return t.fresh ? V{} : load(a); }
