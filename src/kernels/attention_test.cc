#include "kernels/attention.h"

#include "kernels/mla.h"
#include "kernels/test_support.h"

namespace spillway::kernels {
namespace {

using namespace test;  // NOLINT: the vocabulary of the kernel tests

class Attention : public EveryIsa {};
SW_EVERY_ISA(Attention);

// softmax(scale q k) v over positions 0..last for one head. k, v: rows of the whole context with their strides.
std::vector<double> attend(const float* q, const std::vector<float>& k, const std::vector<float>& v, int kd, int vd,
                           int64_t k_stride, int64_t v_stride, int last, double scale) {
  std::vector<double> scores, out(static_cast<size_t>(vd));
  double most = -1e300, total = 0;
  for (int j = 0; j <= last; ++j) {
    double s = 0;
    for (int d = 0; d < kd; ++d)
      s += static_cast<double>(q[d]) * static_cast<double>(k[static_cast<size_t>(j * k_stride + d)]);
    scores.push_back(s * scale);
    most = std::max(most, scores.back());
  }
  for (double& s : scores) total += s = std::exp(s - most);
  for (int j = 0; j <= last; ++j) {
    for (int d = 0; d < vd; ++d) {
      out[static_cast<size_t>(d)] +=
          scores[static_cast<size_t>(j)] / total * static_cast<double>(v[static_cast<size_t>(j * v_stride + d)]);
    }
  }
  return out;
}

// Two sequences on scattered pages; unwritten bytes are NaN.
struct Cache {
  Tensor bytes;
  KvPagesView view;
  std::vector<int32_t> pages[2] = {{11, 3, 7, 0, 9, 2, 13, 15, 17, 19, 21, 23},
                                   {4, 12, 1, 8, 5, 6, 14, 16, 18, 20, 22, 24}};

  Cache(DType dtype, int page_tokens, int kv_heads, int kd, int vd) {
    view.dtype = dtype;
    view.page_tokens = page_tokens;
    view.kv_heads = kv_heads;
    view.k_dim = kd;
    view.v_dim = vd;
    view.page_stride_bytes = view.page_bytes() + 64;
    bytes = Tensor(DType::kU8, {25 * view.page_stride_bytes});
    std::memset(bytes.view().data, 0xff, bytes.bytes());
    view.base = bytes.view().data;
  }
};

float kept(float x, DType dtype) { return dtype == DType::kF32 ? x : tensor::bf16_to_float(tensor::float_to_bf16(x)); }

struct Problem {
  int heads, kv_heads, kd, vd, page_tokens;
  DType dtype;
};

TEST_P(Attention, PagedEqualsPlainAndChunksDoNotMatter) {
  for (const Problem p : {Problem{6, 2, 128, 128, 64, DType::kF32}, Problem{6, 2, 128, 128, 32, DType::kBF16},
                          Problem{3, 3, 20, 12, 16, DType::kF32}, Problem{16, 1, 24, 19, 48, DType::kBF16}}) {
    const int context = 180;
    const Tensor k = random_f32({context, p.kv_heads, p.kd}, 1), v = random_f32({context, p.kv_heads, p.vd}, 2);
    const Tensor q = random_f32({context, p.heads, p.kd}, 3);
    const float scale = 1.0f / std::sqrt(static_cast<float>(p.kd));
    const auto run = [&](const std::vector<int>& chunks) {
      Cache cache(p.dtype, p.page_tokens, p.kv_heads, p.kd, p.vd);
      Tensor out = poisoned({context, p.heads, p.vd});
      int at = 0;
      for (const int rows : chunks) {
        const SequenceRows sequence{at, rows, at, cache.pages[0]};
        AttentionArgs args;
        args.queries = head_rows(q);
        args.heads = p.heads;
        args.scale = scale;
        args.pages = cache.view;
        args.out = out;
        write_kv(head_rows(k), head_rows(v), {&sequence, 1}, cache.view, stream_);
        paged_attention(args, {&sequence, 1}, stream_);
        at += rows;
      }
      return out;
    };
    const Tensor whole = run({context});
    std::vector<float> ks, vs;
    for (int64_t i = 0; i < k.shape().elements(); ++i) ks.push_back(kept(k.as<float>()[i], p.dtype));
    for (int64_t i = 0; i < v.shape().elements(); ++i) vs.push_back(kept(v.as<float>()[i], p.dtype));
    for (const int t : {0, 1, 15, 16, 63, 64, 100, context - 1}) {
      for (int h = 0; h < p.heads; ++h) {
        const int g = h / (p.heads / p.kv_heads);
        const std::vector<float> kh(ks.begin() + g * p.kd, ks.end()), vh(vs.begin() + g * p.vd, vs.end());
        const auto expected = attend(q.as<float>() + (t * p.heads + h) * p.kd, kh, vh, p.kd, p.vd, p.kv_heads * p.kd,
                                     p.kv_heads * p.vd, t, static_cast<double>(scale));
        const TensorView row = whole.view().rows(t, t + 1).reshaped({p.heads, p.vd}).rows(h, h + 1);
        EXPECT_LT(relative_error(row, expected), 1e-5) << "row " << t << " head " << h;
      }
    }
    EXPECT_TRUE(same_bits(whole, run({1, 50, 13, 1, 1, 64, 49, 1})));
  }
}

TEST_P(Attention, NeighboursDoNotMatter) {
  const Tensor q = random_f32({40, 4, 32}, 1), k = random_f32({40, 2, 32}, 2), v = random_f32({40, 2, 32}, 3);
  const auto run = [&](bool together, int which) {
    Cache cache(DType::kBF16, 16, 2, 32, 32);
    Tensor out = poisoned({40, 4, 32});
    std::vector<SequenceRows> batch;
    if (together || which == 0) batch.push_back({0, 25, 0, cache.pages[0]});
    if (together || which == 1) batch.push_back({25, 15, 0, cache.pages[1]});
    AttentionArgs args;
    args.queries = head_rows(q);
    args.heads = 4;
    args.pages = cache.view;
    args.out = out;
    write_kv(head_rows(k), head_rows(v), batch, cache.view, stream_);
    paged_attention(args, batch, stream_);
    return out;
  };
  const Tensor both = run(true, 0);
  EXPECT_TRUE(same_bits(both.view().rows(0, 25), run(false, 0).view().rows(0, 25)));
  EXPECT_TRUE(same_bits(both.view().rows(25, 40), run(false, 1).view().rows(25, 40)));
}

TEST_P(Attention, ThreadsDoNotMatterWithFewKvHeads) {
  const Tensor q = random_f32({70, 6, 32}, 1), k = random_f32({70, 1, 32}, 2), v = random_f32({70, 1, 32}, 3);
  const auto run = [&](int threads) {
    tensor::Stream stream(threads);
    Cache cache(DType::kBF16, 64, 1, 32, 32);
    Tensor out = poisoned({70, 6, 32});
    for (const auto& [at, rows] : {std::pair(0, 69), std::pair(69, 1)}) {
      const SequenceRows sequence{at, rows, at, cache.pages[0]};
      AttentionArgs args;
      args.queries = head_rows(q);
      args.heads = 6;
      args.pages = cache.view;
      args.out = out;
      write_kv(head_rows(k), head_rows(v), {&sequence, 1}, cache.view, stream);
      paged_attention(args, {&sequence, 1}, stream);
    }
    return out;
  };
  const Tensor alone = run(1);
  EXPECT_TRUE(same_bits(alone, run(4)));
  EXPECT_TRUE(same_bits(alone, run(9)));
}

TEST_P(Attention, LatentEqualsPlainAndChunksDoNotMatter) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int heads : {5, 20}) {
      const int context = 100, lora = 72, rope = 24;
      const Tensor c = random_f32({context, 1, lora}, 1), r = random_f32({context, 1, rope}, 2);
      const Tensor q = random_f32({context, heads, lora}, 3), qr = random_f32({context, heads, rope}, 4);
      const std::vector<int32_t> pages = {5, 1, 0, 3};
      LatentPagesView view;
      view.dtype = dtype;
      view.page_tokens = 32;
      view.lora_dim = lora;
      view.rope_dim = rope;
      view.page_stride_bytes = view.page_bytes();
      Tensor bytes(DType::kU8, {6 * view.page_stride_bytes});
      view.base = bytes.view().data;
      const auto run = [&](const std::vector<int>& chunks) {
        std::memset(bytes.view().data, 0xff, bytes.bytes());
        Tensor out = poisoned({context, heads, lora});
        int at = 0;
        for (const int rows : chunks) {
          const SequenceRows sequence{at, rows, at, pages};
          write_latent(head_rows(c), head_rows(r), {&sequence, 1}, view, stream_);
          latent_attention({head_rows(q), head_rows(qr), heads, 0.1f, view, out}, {&sequence, 1}, stream_);
          at += rows;
        }
        return out;
      };
      const Tensor whole = run({context});
      std::vector<float> keys;
      for (int t = 0; t < context; ++t) {
        for (int d = 0; d < lora; ++d) keys.push_back(kept(c.as<float>()[t * lora + d], dtype));
        for (int d = 0; d < rope; ++d) keys.push_back(kept(r.as<float>()[t * rope + d], dtype));
      }
      for (const int t : {0, 17, 99}) {
        std::vector<float> query(q.as<float>() + t * heads * lora, q.as<float>() + t * heads * lora + lora);
        query.insert(query.end(), qr.as<float>() + t * heads * rope, qr.as<float>() + t * heads * rope + rope);
        const auto expected = attend(query.data(), keys, keys, lora + rope, lora, lora + rope, lora + rope, t, 0.1);
        EXPECT_LT(relative_error(whole.view().rows(t, t + 1).reshaped({heads, lora}).rows(0, 1), expected), 1e-5);
      }
      EXPECT_TRUE(same_bits(whole, run({1, 60, 1, 38})));
      const Tensor back = poisoned({context, lora}), back_rope = poisoned({context, rope});
      read_latent(pages, view, back, back_rope, stream_);
      EXPECT_EQ(back.as<float>()[99 * lora + 71], keys[99 * (lora + rope) + 71]);
      EXPECT_EQ(back_rope.as<float>()[99 * rope + 23], keys[99 * (lora + rope) + lora + 23]);
    }
  }
}

TEST_P(Attention, DenseEqualsPlain) {
  const int context = 90, rows = 37, heads = 3, kd = 40, vd = 18;
  const Tensor k = random_f32({context, heads, kd}, 1), v = random_f32({context, heads, vd}, 2);
  const Tensor q = random_f32({rows, heads, kd}, 3), out = poisoned({rows, heads, vd});
  DenseAttentionArgs args;
  args.queries = head_rows(q);
  args.keys = head_rows(k);
  args.values = head_rows(v);
  args.heads = heads;
  args.k_dim = kd;
  args.v_dim = vd;
  args.rows = rows;
  args.position = context - rows;
  args.scale = 0.15f;
  args.out = out;
  dense_attention(args, stream_);
  for (const int t : {0, 20, rows - 1}) {
    for (int h = 0; h < heads; ++h) {
      const std::vector<float> kh(k.as<float>() + h * kd, k.as<float>() + k.shape().elements());
      const std::vector<float> vh(v.as<float>() + h * vd, v.as<float>() + v.shape().elements());
      const auto expected = attend(q.as<float>() + (t * heads + h) * kd, kh, vh, kd, vd, heads * kd, heads * vd,
                                   context - rows + t, static_cast<double>(args.scale));
      EXPECT_LT(relative_error(out.view().rows(t, t + 1).reshaped({heads, vd}).rows(h, h + 1), expected), 1e-5);
    }
  }
}

}  // namespace
}  // namespace spillway::kernels
