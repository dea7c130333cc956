// Mla: DeepSeek's multi-head latent attention. The cache holds a token's normalised latent and its rotated shared key.
// One a layer; engine's thread.
#pragma once

#include <optional>
#include <vector>

#include "kernels/mla.h"
#include "nn/linear.h"

namespace spillway::nn {

struct MlaShape {
  int64_t hidden = 0;
  int heads = 0;
  int q_lora = 0;  // 0: queries come from hidden by q_proj
  int kv_lora = 0;
  int nope_dim = 0, rope_dim = 0, value_dim = 0;
  kernels::RopePairs pairs = kernels::RopePairs::kInterleaved;
  double softmax_scale = 1;
  double norm_epsilon = 1e-6;

  int query_dim() const { return nope_dim + rope_dim; }
  int kv_width() const { return kv_lora + rope_dim; }
};

using MlaForm = kernels::LatentForm;

class Mla {
 public:
  static Result<Mla> load(const weights::WeightScope& scope, const MlaShape& shape, int kv_layer, LoadContext& context);

  // residual [T, hidden] += attention(norm(x [T, hidden])); norm: empty for none.
  void add_to(tensor::TensorView x, const kernels::InputNorm& norm, tensor::TensorView residual, const Step& step,
              MlaForm form = MlaForm::kAuto) const;
  size_t workspace_bytes(int64_t tokens) const;

 private:
  tensor::StageCost attention_cost(const Step& step) const;

  Status load_kv_b(const weights::WeightScope& scope, LoadContext& context);
  kernels::LatentPagesView pages(const KvStorage& kv) const;
  kernels::LatentShape latent_shape() const;

  MlaShape shape_;
  int kv_layer_ = 0;
  Linear down_;  // {q_a_proj, kv_a_proj_with_mqa}, or the latter alone
  std::optional<RmsNorm> q_norm_;
  RmsNorm kv_norm_;
  Linear query_;  // q_b_proj, or q_proj
  Linear output_;
  kernels::HeadLinear key_up_;    // by head [kv_lora, nope]: W_UK transposed
  kernels::HeadLinear value_up_;  // by head [value, kv_lora]: W_UV
  kernels::PackedLinear kv_b_;    // the naive form's, as stored
};

}  // namespace spillway::nn
