#include "models/dense_decoder.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "models/decoder.h"
#include "nn/attention.h"
#include "nn/mlp.h"

namespace spillway::models {
namespace {

struct Layer {
  nn::RmsNorm attention_norm;
  nn::Attention attention;
  nn::RmsNorm mlp_norm;
  nn::GatedMlp mlp;
};

nn::AttentionShape attention_shape(const DenseConfig& config) {
  return {.hidden = config.hidden_size,
          .heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .qkv_bias = config.qkv_bias,
          .output_bias = config.output_bias,
          .qk_norm = config.qk_norm,
          .norm_epsilon = config.norm_epsilon};
}

class DenseDecoder final : public Decoder {
 public:
  static Result<std::unique_ptr<LanguageModel>> load(DenseConfig config, FamilyLoad load) {
    SW_TRY(choose_layers(load.layers, config));
    nn::LoadContext context{.precision = resolve_precision(load.precision, config, load.stream.device()),
                            .stream = load.stream};
    const weights::WeightSource& source = *load.source;
    SW_ASSIGN(Parts parts, load_parts(config, std::move(load.source), context));
    std::unique_ptr<DenseDecoder> model(new DenseDecoder(std::move(parts), config, load.batch_tokens_max, context));
    for (int i = config.slice.begin; i < config.slice.end; ++i) {
      SW_TRY(model->load_layer(weights::WeightScope(source).scope("model.layers", i), config, i - config.slice.begin,
                               context));
    }
    const nn::AttentionShape shape = attention_shape(config);
    const int64_t tokens = load.batch_tokens_max;
    const size_t bytes =
        tensor::Arena::footprint(tensor::DType::kF32, {tokens, config.hidden_size}) +
        std::max(model->layers_[0].attention.workspace_bytes(tokens), model->layers_[0].mlp.workspace_bytes(tokens));
    model->finish_loading(config, context, std::vector<int>(model->layers_.size(), shape.kv_width()), bytes);
    return std::unique_ptr<LanguageModel>(std::move(model));
  }

 private:
  DenseDecoder(Parts parts, const DenseConfig& config, int batch_tokens_max, const nn::LoadContext& context)
      : Decoder(std::move(parts), config, config.head_dim, batch_tokens_max, context) {}

  Status load_layer(const weights::WeightScope& scope, const DenseConfig& config, int index, nn::LoadContext& context) {
    Layer layer;
    SW_ASSIGN(layer.attention_norm,
              nn::RmsNorm::load(scope, "input_layernorm", config.hidden_size, config.norm_epsilon, context));
    SW_ASSIGN(layer.attention, nn::Attention::load(scope.scope("self_attn"), attention_shape(config), index, context));
    SW_ASSIGN(layer.mlp_norm,
              nn::RmsNorm::load(scope, "post_attention_layernorm", config.hidden_size, config.norm_epsilon, context));
    SW_ASSIGN(layer.mlp, nn::GatedMlp::load(scope.scope("mlp"), config.hidden_size, config.intermediate_size,
                                            config.mlp_bias, context));
    layers_.push_back(std::move(layer));
    return {};
  }

  void run_layers(tensor::TensorView x, const nn::Step& step) override {
    const nn::ArenaScope scope(step.arena);
    const tensor::TensorView normed = step.activation(x.shape);
    for (const Layer& layer : layers_) run_layer(layer, x, normed, step);
  }

  void run_wanted(tensor::TensorView x, const nn::Step& step, tensor::TensorView wanted,
                  tensor::TensorView out) override {
    const nn::ArenaScope scope(step.arena);
    const tensor::TensorView normed = step.activation(x.shape);
    for (size_t i = 0; i + 1 < layers_.size(); ++i) run_layer(layers_[i], x, normed, step);
    const Layer& last = layers_.back();
    kernels::gather_rows(x, wanted, out, step.stream);
    last.attention.add_to(x, last.attention_norm.before(normed), out, step, wanted);
    last.mlp.add_to(out, out, step, last.mlp_norm.before(normed.rows(0, wanted.elements())));
  }

  static void run_layer(const Layer& layer, tensor::TensorView x, tensor::TensorView normed, const nn::Step& step) {
    layer.attention.add_to(x, layer.attention_norm.before(normed), x, step);
    layer.mlp.add_to(x, x, step, layer.mlp_norm.before(normed));
  }

  std::vector<Layer> layers_;
};

}  // namespace

Result<std::unique_ptr<LanguageModel>> load_dense_decoder(const DenseConfig& config, FamilyLoad load) {
  return DenseDecoder::load(config, std::move(load));
}

}  // namespace spillway::models
