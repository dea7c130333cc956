// EncoderLayer: attention over whole sequences and a feed-forward part, each with its residual and layer norm, after it
// (BERT) or before it (ModernBERT); and OneShotLinear, a product with its epilogue. Owned by the model; engine's
// thread.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/encoder.h"
#include "nn/layer_norm.h"
#include "nn/rope.h"

namespace spillway::nn {

// A product with bias and activation, as one kernel or (Fusions::epilogue off) as three.
class OneShotLinear {
 public:
  static Result<OneShotLinear> load(const weights::WeightScope& scope, std::vector<MatrixRow> rows, int64_t inputs,
                                    LoadContext& context);  // with a bias where the checkpoint has one

  int64_t outputs() const { return linear_.outputs(); }
  void apply(tensor::TensorView x, tensor::TensorView y, kernels::Activation activation, const OneShotStep& step) const;
  // y += x W^T + bias.
  void add_to(tensor::TensorView x, tensor::TensorView y, const OneShotStep& step) const;

 private:
  Linear linear_;
};

// What the checkpoint calls the parts of a layer, without ".weight".
struct EncoderLayerNames {
  std::vector<std::string> qkv;  // three matrices, or one of all
  std::string attention_output;
  std::string attention_norm;
  std::vector<std::string> mlp_in;  // one; of a gated form where there are two, the activated one first
  std::string mlp_out;
  std::string mlp_norm;
};

struct EncoderLayerConfig {
  EncoderLayerNames names;
  int hidden = 0;
  int heads = 0;
  int intermediate = 0;
  double epsilon = 1e-12;
  bool norm_before = false;
  bool has_attention_norm = true;  // ModernBERT's first layer has none
  bool gated = false;              // activation(first half) * second half
  kernels::Activation activation = kernels::Activation::kGelu;
  int window = 0;  // attention to so many neighbours on each side; 0: to all
};

class EncoderLayer {
 public:
  // split_qkv: queries, keys and values stay three products (Fusions::qkv off).
  // before: the norm that the layer's input comes from, unless it norms its input itself.
  static Result<EncoderLayer> load(const weights::WeightScope& scope, const EncoderLayerConfig& config, bool split_qkv,
                                   const LayerNorm& before, LoadContext& context);

  const LayerNorm& last_norm() const;  // of a layer that norms its output

  // Which rows of its output anybody reads: all, or (on the CPU) each sequence's first, which then stand in front.
  enum class Rows : uint8_t { kAll, kFirsts };

  // x f32 [T, hidden], in place. rope: the table of cosines and sines, or empty. half: attention products in bf16.
  void apply(tensor::TensorView x, tensor::TensorView rope, bool half, const OneShotStep& step,
             Rows rows = Rows::kAll) const;

  // What apply() takes from the arena for so many tokens.
  static size_t workspace_bytes(const EncoderLayerConfig& config, int64_t tokens);

 private:
  // Rows that pass through the feed-forward part at a time, so that what is between its products stays in the cache.
  static constexpr int64_t kMlpRows = 384;

  Status load_qkv(const weights::WeightScope& scope, bool split, LoadContext& context);
  void attend(tensor::TensorView x, tensor::TensorView residual, tensor::TensorView rope, bool half, Rows rows,
              const OneShotStep& step) const;
  static void bring_firsts_in_front(tensor::TensorView x, std::span<const int32_t> offsets);
  void feed_forward(tensor::TensorView x, tensor::TensorView residual, const OneShotStep& step) const;
  void add_residual(const OneShotLinear& product, tensor::TensorView x, tensor::TensorView residual,
                    const OneShotStep& step) const;

  EncoderLayerConfig config_;
  std::vector<OneShotLinear> qkv_;  // one, or three
  OneShotLinear attention_output_;
  std::optional<LayerNorm> attention_norm_;
  OneShotLinear mlp_in_;
  OneShotLinear mlp_out_;
  std::optional<LayerNorm> mlp_norm_;
};

}  // namespace spillway::nn
