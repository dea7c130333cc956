// DeepseekV3ForCausalLM: DeepSeek-V3, R1 and their like. Multi-head latent attention, leading dense layers and then
// experts, and the multi-token-prediction layer where the checkpoint holds it (as layer num_hidden_layers).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "kernels/elementwise.h"
#include "models/decoder.h"
#include "nn/mla.h"
#include "nn/mlp.h"
#include "nn/moe.h"

namespace spillway::models {
namespace {

using tensor::TensorView;

nn::MlaShape mla_shape(const DeepseekV3Config& config) {
  nn::MlaShape shape{.hidden = config.hidden_size,
                     .heads = config.heads,
                     .q_lora = config.q_lora_rank,
                     .kv_lora = config.kv_lora_rank,
                     .nope_dim = config.nope_dim,
                     .rope_dim = config.rope_dim,
                     .value_dim = config.value_dim};
  shape.pairs = config.rope_interleaved ? kernels::RopePairs::kInterleaved : kernels::RopePairs::kHalves;
  shape.norm_epsilon = config.norm_epsilon;
  shape.softmax_scale = 1 / std::sqrt(double(shape.query_dim()));
  const nn::RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != nn::RopeScaling::Kind::kNone && scaling.mscale_all_dim != 0) {
    const double mscale = nn::yarn_mscale(scaling.factor, scaling.mscale_all_dim);
    shape.softmax_scale *= mscale * mscale;
  }
  return shape;
}

nn::MoeShape moe_shape(const DeepseekV3Config& config) {
  nn::MoeShape shape{.hidden = config.hidden_size,
                     .inner = config.moe_intermediate_size,
                     .experts = config.experts,
                     .shared_experts = config.shared_experts,
                     .routing = {}};
  shape.routing.score = kernels::RoutingOptions::Score::kSigmoid;
  shape.routing.experts_per_token = config.experts_per_token;
  shape.routing.groups = config.groups;
  shape.routing.groups_per_token = config.groups_kept;
  shape.routing.normalize = config.normalize_weights;
  shape.routing.scale = float(config.routed_scale);
  return shape;
}

struct Block {
  nn::RmsNorm attention_norm;
  nn::Mla attention;
  nn::RmsNorm mlp_norm;
  std::optional<nn::GatedMlp> mlp;  // one of the two
  std::optional<nn::Moe> moe;

  static Result<Block> load(const weights::WeightScope& scope, const DeepseekV3Config& config, int index, int kv_layer,
                            nn::LoadContext& context) {
    Block block;
    SW_ASSIGN(block.attention_norm,
              nn::RmsNorm::load(scope, "input_layernorm", config.hidden_size, config.norm_epsilon, context));
    SW_ASSIGN(block.attention, nn::Mla::load(scope.scope("self_attn"), mla_shape(config), kv_layer, context));
    SW_ASSIGN(block.mlp_norm,
              nn::RmsNorm::load(scope, "post_attention_layernorm", config.hidden_size, config.norm_epsilon, context));
    if (index < config.dense_layers) {
      SW_ASSIGN(block.mlp,
                nn::GatedMlp::load(scope.scope("mlp"), config.hidden_size, config.intermediate_size, false, context));
    } else {
      SW_ASSIGN(block.moe, nn::Moe::load(scope.scope("mlp"), moe_shape(config), context));
    }
    return block;
  }

  void run(TensorView x, const nn::Step& step) const {
    attend(x, step);
    feed_forward(x, step);
  }

  void attend(TensorView x, const nn::Step& step) const {
    const nn::ArenaScope scope(step.arena);
    const TensorView normed = step.activation(x.shape);
    attention.add_to(x, attention_norm.before(normed), x, step);
  }

  void feed_forward(TensorView x, const nn::Step& step) const {
    const nn::ArenaScope scope(step.arena);
    const TensorView normed = step.activation(x.shape);
    mlp_norm.apply(x, normed, step.stream);
    if (mlp) mlp->add_to(normed, x, step);
    if (moe) moe->add_to(normed, x, step);
  }

  size_t workspace_bytes(int64_t tokens, int64_t hidden) const {
    return tensor::Arena::footprint(tensor::DType::kF32, {tokens, hidden}) +
           std::max(attention.workspace_bytes(tokens),
                    mlp ? mlp->workspace_bytes(tokens) : moe->workspace_bytes(tokens));
  }
};

// The multi-token-prediction layer: joins a token's embedding with the hidden state before it, and is a block from
// there.
struct DraftLayer {
  nn::RmsNorm embedding_norm, hidden_norm, output_norm;
  kernels::PackedLinear from_embedding, from_hidden;  // the two halves of eh_proj
  Block block;

  static Result<DraftLayer> load(const weights::WeightScope& scope, const DeepseekV3Config& config,
                                 nn::LoadContext& context) {
    DraftLayer layer;
    SW_ASSIGN(layer.embedding_norm,
              nn::RmsNorm::load(scope, "enorm", config.hidden_size, config.norm_epsilon, context));
    SW_ASSIGN(layer.hidden_norm, nn::RmsNorm::load(scope, "hnorm", config.hidden_size, config.norm_epsilon, context));
    SW_ASSIGN(layer.output_norm,
              nn::RmsNorm::load(scope, "shared_head.norm", config.hidden_size, config.norm_epsilon, context));
    SW_TRY(layer.load_join(scope, config.hidden_size, context));
    const int kv_layer = config.slice.end - config.slice.begin;
    SW_ASSIGN(layer.block, Block::load(scope, config, config.layers, kv_layer, context));
    return layer;
  }

  Status load_join(const weights::WeightScope& scope, int64_t hidden, nn::LoadContext& context) {
    SW_ASSIGN(const weights::StoredTensor stored, scope.tensor("eh_proj.weight", {hidden, 2 * hidden}));
    const size_t half = size_t(hidden) * tensor::size_of(stored.view().dtype);
    kernels::PackedLinear* parts[] = {&from_embedding, &from_hidden};
    for (size_t p = 0; p < 2; ++p) {
      tensor::Tensor part(stored.view().dtype, {hidden, hidden});
      for (int64_t n = 0; n < hidden; ++n) {
        std::memcpy(part.view().data + size_t(n) * half, stored.view().data + (2 * size_t(n) + p) * half, half);
      }
      SW_ASSIGN(*parts[p], kernels::pack_linear(kernels::WeightSource{.weight = part, .scales = {}}, context.precision,
                                                context.stream));
      context.add(hidden * hidden, int64_t(parts[p]->bytes()));
    }
    return {};
  }
};

class DeepseekV3 final : public Decoder {
 public:
  static Result<std::unique_ptr<LanguageModel>> load(DeepseekV3Config config, FamilyLoad load) {
    SW_TRY(choose_layers(load.layers, config));
    nn::LoadContext context{.precision = resolve_precision(load.precision, config, load.stream.device()),
                            .stream = load.stream};
    const weights::WeightScope scope(*load.source);
    SW_ASSIGN(Parts parts, load_parts(config, std::move(load.source), context));
    std::unique_ptr<DeepseekV3> model(new DeepseekV3(std::move(parts), config, load.batch_tokens_max, context));
    size_t bytes = 0;
    for (int i = config.slice.begin; i < config.slice.end; ++i) {
      SW_ASSIGN(Block block, Block::load(scope.scope("model.layers", i), config, i, i - config.slice.begin, context));
      bytes = std::max(bytes, block.workspace_bytes(load.batch_tokens_max, config.hidden_size));
      model->blocks_.push_back(std::move(block));
    }
    SW_TRY(model->load_draft_layer(scope.scope("model.layers", config.layers), config, context, bytes,
                                   load.batch_tokens_max));
    const size_t kv_layers = model->blocks_.size() + (model->draft_ ? 1 : 0);
    model->finish_loading(config, context, std::vector<int>(kv_layers, mla_shape(config).kv_width()), bytes);
    return std::unique_ptr<LanguageModel>(std::move(model));
  }

  TensorView draft(std::span<const DraftInput> inputs, nn::KvStorage& kv, tensor::Stream& stream) override;
  void draft_tokens(std::span<const DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream& stream) override;

 private:
  DeepseekV3(Parts parts, const DeepseekV3Config& config, int batch_tokens_max, const nn::LoadContext& context)
      : Decoder(std::move(parts), config, config.rope_dim, batch_tokens_max, context) {}

  // Published distillations of the architecture keep num_nextn_predict_layers but not the layer.
  Status load_draft_layer(const weights::WeightScope& scope, const DeepseekV3Config& config, nn::LoadContext& context,
                          size_t& bytes, int64_t tokens) {
    if (config.slice.end < config.layers) return {};
    if (config.mtp_layers == 0 || !scope.contains("eh_proj.weight")) return {};
    // The draft layer is no part of a plain step.
    const nn::LoadTotals before = context.totals;
    SW_ASSIGN(draft_, DraftLayer::load(scope, config, context));
    context.totals.decode_bytes = before.decode_bytes;
    context.totals.flops_per_token = before.flops_per_token;
    const size_t row = tensor::Arena::footprint(tensor::DType::kF32, {tokens, config.hidden_size});
    bytes = std::max(bytes, 5 * row + draft_->block.workspace_bytes(tokens, config.hidden_size));
    info_.draft_tokens_max = 1;
    keeps_hidden_ = true;
    return {};
  }

  void run_layers(TensorView x, const nn::Step& step) override {
    for (const Block& block : blocks_) block.run(x, step);
  }

  void run_wanted(TensorView x, const nn::Step& step, TensorView wanted, TensorView out) override {
    for (size_t i = 0; i + 1 < blocks_.size(); ++i) blocks_[i].run(x, step);
    blocks_.back().attend(x, step);
    kernels::gather_rows(x, wanted, out, step.stream);
    blocks_.back().feed_forward(out, step);
  }

  // The draft pass over `sent`: logits of the wanted rows, on the device.
  TensorView draft_logits(const Sent& sent, tensor::Stream& stream);
  TensorView run_draft_layer(const nn::Step& step, TensorView ids, TensorView hidden, TensorView wanted) override;

  // Fills inputs_ for the draft pass.
  void flatten_drafts(std::span<const DraftInput> inputs);

  std::vector<Block> blocks_;
  std::optional<DraftLayer> draft_;
};

void DeepseekV3::flatten_drafts(std::span<const DraftInput> inputs) {
  SW_CHECK(draft_.has_value(), "drafts of a checkpoint without its draft layer");
  SW_CHECK(!inputs.empty(), "no drafts asked for");
  arena_.reset();
  inputs_.clear();
  int32_t at = 0;
  for (const DraftInput& input : inputs) {
    SW_CHECK(input.sequence >= 0 && size_t(input.sequence) < past_.size(),
             "a draft of a sequence that was not in the last forward()");
    const PastSlice& past = past_[size_t(input.sequence)];
    const int32_t count = int32_t(input.next_tokens.size());
    SW_CHECK(count > 0 && count <= past.rows.rows, "a draft over more tokens than the last forward() saw");
    SW_CHECK(at + count <= batch_tokens_max(), "drafts of more tokens than the batch had");
    const std::span<const int32_t> pages(past_pages_.data() + past.pages_begin, past.rows.pages.size());
    inputs_.sequences.push_back({.row_begin = at, .rows = count, .position = past.rows.position, .pages = pages});
    for (int32_t i = 0; i < count; ++i) {
      inputs_.ids.push_back(input.next_tokens[size_t(i)]);
      inputs_.sources.push_back(past.rows.row_begin + i);
    }
    if (input.logits) inputs_.wanted.push_back(at + count - 1);
    at += count;
  }
}

TensorView DeepseekV3::draft(std::span<const DraftInput> inputs, nn::KvStorage& kv, tensor::Stream& stream) {
  flatten_drafts(inputs);
  forget_gaps();
  const Sent sent = send(kv, stream);
  return host_logits(draft_logits(sent, stream), sent.inputs.wanted.elements(), stream);
}

void DeepseekV3::draft_tokens(std::span<const DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                              std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream& stream) {
  flatten_drafts(inputs);
  SW_CHECK(inputs_.wanted.size() == draws.size() && draws.size() == tokens.size(), "a draw for each wanted row");
  inputs_.draws.assign(draws.begin(), draws.end());
  const Sent sent = send(kv, stream);
  draw_to_host(draft_logits(sent, stream), sent.inputs.draws, tokens, stream);
}

TensorView DeepseekV3::draft_logits(const Sent& sent, tensor::Stream& stream) {
  const TensorView hidden = arena_.f32({sent.step.tokens(), info_.hidden_size});
  kernels::gather_rows(hidden_, sent.inputs.sources, hidden, stream);
  return run_draft_layer(sent.step, sent.inputs.ids, hidden, sent.inputs.wanted);
}

TensorView DeepseekV3::run_draft_layer(const nn::Step& step, TensorView ids, TensorView hidden, TensorView wanted) {
  tensor::Stream& stream = step.stream;
  const int64_t rows = wanted.elements();
  const tensor::Shape shape{step.tokens(), info_.hidden_size};
  const TensorView embedded = embed(ids, stream), x = arena_.f32(shape);
  const TensorView left = step.activation(shape), right = step.activation(shape);
  stream.stage("draft: norms", {.bytes = 2.0 * double(embedded.bytes() + left.bytes())});
  draft_->embedding_norm.apply(embedded, left, stream);
  draft_->hidden_norm.apply(hidden, right, stream);
  stream.stage("draft: join", nn::product_cost(draft_->from_embedding, shape[0]));
  kernels::linear(left, draft_->from_embedding, x, stream);
  stream.stage("draft: join", nn::product_cost(draft_->from_hidden, shape[0]));
  kernels::linear(right, draft_->from_hidden, x, stream, {.accumulate = true});
  // Every row leaves its latents in the pages; what comes after attention only the wanted ones need.
  draft_->block.attend(x, step);
  const TensorView gathered = embedded.rows(0, rows), normed = left.rows(0, rows);
  if (rows > 0) {
    kernels::gather_rows(x, wanted, gathered, stream);
    draft_->block.feed_forward(gathered, step);
    draft_->output_norm.apply(gathered, normed, stream);
  }
  return head_logits(normed, stream);
}

}  // namespace

Result<std::unique_ptr<LanguageModel>> load_deepseek_v3(const boost::json::object& object, FamilyLoad load) {
  SW_ASSIGN(const DeepseekV3Config config, parse_deepseek_v3_config(object));
  return DeepseekV3::load(config, std::move(load));
}

}  // namespace spillway::models
