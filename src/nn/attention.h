// Attention: grouped-query attention with rotary halves: fused q, k, v product, optional biases, optional norms of each
// head's query and key (Qwen3), paged keys and values. One a decoder layer; engine's thread.
#pragma once

#include <optional>

#include "nn/linear.h"

namespace spillway::nn {

struct AttentionShape {
  int64_t hidden = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;
  double norm_epsilon = 1e-6;

  int kv_width() const { return 2 * kv_heads * head_dim; }
};

class Attention {
 public:
  static Result<Attention> load(const weights::WeightScope& scope, const AttentionShape& shape, int kv_layer,
                                LoadContext& context);

  // residual [T, hidden] += attention(norm(x [T, hidden])). With wanted rows (i32 [W]), which is the last layer's way:
  // residual [W, hidden] is theirs alone.
  void add_to(tensor::TensorView x, const kernels::InputNorm& norm, tensor::TensorView residual, const Step& step,
              tensor::TensorView wanted = {}) const;

  // Arena bytes that add_to takes for a batch of so many tokens.
  size_t workspace_bytes(int64_t tokens) const;

 private:
  tensor::StageCost attention_cost(const Step& step) const;

  kernels::KvPagesView pages(const KvStorage& kv) const;

  AttentionShape shape_;
  int kv_layer_ = 0;
  Linear qkv_;
  Linear output_;
  std::optional<RmsNorm> query_norm_, key_norm_;
};

}  // namespace spillway::nn
