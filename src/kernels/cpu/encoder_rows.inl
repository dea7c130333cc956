// Layer norm and the pointwise activations. See encoder.h and activation.h.

// (integral of the normal distribution to x, less 1/2) / x as P(x^2) / Q(x^2) for |x| <= 5.75: fitted to 1.4e-8 of the
// integral. Beyond, what is left of the integral is 4e-9.
constexpr float kNormalP[] = {3.989421971e-01f, 3.523827489e-02f, 4.758902340e-03f,
                              1.823522290e-04f, 6.388092593e-06f, 2.131381208e-08f};
constexpr float kNormalQ[] = {
    1.0f, 2.549945885e-01f, 2.943033632e-02f, 1.961434291e-03f, 7.767879166e-05f, 1.158156469e-06f};

SW_INLINE V normal_integral(V x) {
  const V limit = splat(5.75f);
  const V u = vmax(-limit, x > limit ? limit : x);
  const V t = u * u;
  V p = splat(kNormalP[5]);
  V q = splat(kNormalQ[5]);
#pragma GCC unroll 8
  for (int i = 4; i >= 0; --i) {
    p = fma(p, t, splat(kNormalP[i]));
    q = fma(q, t, splat(kNormalQ[i]));
  }
  return fma(u, p / q, splat(0.5f));
}

SW_INLINE V sigmoid(V x) { return 1.0f / (exponential(-x) + 1.0f); }

template <Activation A>
SW_INLINE V activated(V x) {
  if constexpr (A == Activation::kGelu) return x * normal_integral(x);
  if constexpr (A == Activation::kGeluTanh) {
    const V cube = x * x * x;
    return x * sigmoid(fma(cube, splat(0.044715f), x) * 1.5957691216f);
  }
  if constexpr (A == Activation::kRelu) return vmax(x, V{});
  if constexpr (A == Activation::kSilu) return x * sigmoid(x);
  if constexpr (A == Activation::kTanh) return fma(sigmoid(x + x), splat(2.0f), splat(-1.0f));
  return x;
}

// body.operator()<A>() for the activation at run time.
template <class Body>
SW_INLINE void with_activation(Activation activation, Body body) {
  switch (activation) {
    case Activation::kNone:
      return body.template operator()<Activation::kNone>();
    case Activation::kGelu:
      return body.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh:
      return body.template operator()<Activation::kGeluTanh>();
    case Activation::kRelu:
      return body.template operator()<Activation::kRelu>();
    case Activation::kSilu:
      return body.template operator()<Activation::kSilu>();
    case Activation::kTanh:
      return body.template operator()<Activation::kTanh>();
  }
}

void activate(Activation activation, float* x, int64_t count) {
  with_activation(activation, [&]<Activation A>() {
    for_each_vector(count,
                    [&](int64_t i, int lanes) { store_some(x + i, activated<A>(load_some(x + i, lanes)), lanes); });
  });
}

void gated_activation(Activation activation, const float* gate, const float* up, int64_t count, float* y) {
  with_activation(activation, [&]<Activation A>() {
    for_each_vector(count, [&](int64_t i, int lanes) {
      store_some(y + i, activated<A>(load_some(gate + i, lanes)) * load_some(up + i, lanes), lanes);
    });
  });
}

template <Activation A>
SW_INLINE void finish_rows_with(const RowSums& t) {
  const float* sums = t.sums;
  float* y = t.y;
  for (int64_t r = 0; r < t.rows; ++r, sums += kPanel, y += t.y_stride) {
    for_each_vector(t.width, [&](int64_t c, int lanes) {
      V value = load(sums + c);
      if (t.bias != nullptr) value += load_some(t.bias + c, lanes);
      if (t.accumulate) value += load_some(y + c, lanes);
      store_some(y + c, activated<A>(value), lanes);
    });
  }
}

void finish_rows(const RowSums& t) {
  with_activation(t.activation, [&]<Activation A>() { finish_rows_with<A>(t); });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t count, float* y) {
  V total = {};
  for_each_vector(count, [&](int64_t i, int lanes) { total += load_some(x + i, lanes); });
  const float mean = sum(total) / (float)count;
  V squares = {};
  for_each_vector(count, [&](int64_t i, int lanes) {
    V d = load_some(x + i, lanes) - mean;
    if (lanes < kLanes) {
      for (int j = lanes; j < kLanes; ++j) d[j] = 0;
    }
    squares = fma(d, d, squares);
  });
  const float inverse = 1.0f / __builtin_sqrtf(sum(squares) / (float)count + eps);
  for_each_vector(count, [&](int64_t i, int lanes) {
    V v = (load_some(x + i, lanes) - mean) * inverse * load_some(weight + i, lanes);
    if (bias != nullptr) v += load_some(bias + i, lanes);
    store_some(y + i, v, lanes);
  });
}
