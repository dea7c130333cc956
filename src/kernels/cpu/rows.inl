// Operations on one row. See kernel_table.h and elementwise.h.

void round_to_bf16(const float* x, int64_t count, uint16_t* out) {
  for_each_vector(count, [&](int64_t i, int lanes) {
    const VU bits = bf16_bits(load_some(x + i, lanes));
    const VH halves = __builtin_convertvector(bits, VH);
    if (lanes == kLanes) {
      __builtin_memcpy(out + i, &halves, sizeof(halves));
    } else {
      for (int j = 0; j < lanes; ++j) out[i + j] = halves[j];
    }
  });
}

void widen_row_bf16(const uint16_t* x, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, load(x + i));
  for (; i < count; ++i) {
    const uint32_t bits = (uint32_t)x[i] << 16;
    __builtin_memcpy(out + i, &bits, 4);
  }
}

SW_INLINE float sum_of_squares(const float* x, int64_t count) {
  V s0 = {}, s1 = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const V a = load(x + i), b = load(x + i + kLanes);
    s0 = fma(a, a, s0);
    s1 = fma(b, b, s1);
  }
  for_each_vector(count - i, [&](int64_t j, int lanes) {
    const V a = load_some(x + i + j, lanes);
    s0 = fma(a, a, s0);
  });
  return sum(s0 + s1);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t count, float* y) {
  const float mean = sum_of_squares(x, count) / (float)count;
  const float inverse = 1.0f / __builtin_sqrtf(mean + eps);
  for_each_vector(count, [&](int64_t i, int lanes) {
    store_some(y + i, load_some(x + i, lanes) * inverse * load_some(weight + i, lanes), lanes);
  });
}

void add(float* y, const float* x, int64_t count) {
  for_each_vector(count, [&](int64_t i, int lanes) {
    store_some(y + i, load_some(y + i, lanes) + load_some(x + i, lanes), lanes);
  });
}

void add_rms_norm(float* residual, const float* x, const float* weight, float eps, int64_t count, float* y) {
  add(residual, x, count);
  rms_norm(residual, weight, eps, count, y);
}

void add_scaled(float* y, const float* x, float scale, int64_t count) {
  for_each_vector(count, [&](int64_t i, int lanes) {
    store_some(y + i, fma(load_some(x + i, lanes), splat(scale), load_some(y + i, lanes)), lanes);
  });
}

void silu_mul(const float* gate, const float* up, int64_t count, float* y) {
  for_each_vector(count, [&](int64_t i, int lanes) {
    const V g = load_some(gate + i, lanes);
    store_some(y + i, g / (exponential(-g) + 1.0f) * load_some(up + i, lanes), lanes);
  });
}

void rope(const RopeTask& t) {
  if (t.interleaved) {
    for (int i = 0; i < t.pairs; ++i) {
      const float a = t.x[2 * i], b = t.x[2 * i + 1];
      t.x[2 * i] = a * t.cosines[i] - b * t.sines[i];
      t.x[2 * i + 1] = b * t.cosines[i] + a * t.sines[i];
    }
    return;
  }
  for_each_vector(t.pairs, [&](int64_t i, int lanes) {
    const V a = load_some(t.x + i, lanes), b = load_some(t.x + t.pairs + i, lanes);
    const V c = load_some(t.cosines + i, lanes), s = load_some(t.sines + i, lanes);
    store_some(t.x + i, a * c - b * s, lanes);
    store_some(t.x + t.pairs + i, b * c + a * s, lanes);
  });
}
