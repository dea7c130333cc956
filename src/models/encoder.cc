// Encoders: BERT, RoBERTa, DistilBERT, ModernBERT and NomicBERT, by EncoderConfig.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/isa.h"
#include "models/encoder_heads.h"
#include "models/one_shot_loader.h"
#include "nn/embedding.h"
#include "nn/step.h"

namespace spillway::models {
namespace {

using tensor::TensorView;

constexpr int kInputsMax = 256;
constexpr int64_t kBlockRows = 512;

class Encoder final : public OneShotModel {
 public:
  static Result<std::unique_ptr<OneShotModel>> load(EncoderConfig config, OneShotLoad load) {
    auto model = std::unique_ptr<Encoder>(new Encoder(std::move(config), load));
    nn::LoadContext context{.precision = load.precision, .stream = load.stream};
    SW_TRY(model->load_embeddings(context));
    SW_TRY(model->load_layers(context));
    SW_TRY(model->load_heads(load.folder, context));
    model->describe(context, load.precision_name);
    return std::unique_ptr<OneShotModel>(std::move(model));
  }

  const OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return cost_max_; }
  int batch_inputs_max() const override { return kInputsMax; }

  std::vector<TensorView> run(std::span<const OneShotInput> batch, tensor::Stream& stream) override {
    arena_.reset();
    launches_ = 0;
    lay_out(batch);
    cut_into_blocks(stream.device().kind != tensor::DeviceKind::kCpu);
    nn::OneShotStep step{.arena = arena_,
                         .stream = stream,
                         .fusions = fusions_,
                         .offsets = offsets_,
                         .positions = TensorView(positions_.data(), tensor::DType::kI32, {int64_t(positions_.size())}),
                         .launches = &launches_};
    const TensorView x = arena_.f32({step.tokens(), config_.layer.hidden});
    embed(x, step);
    int longest = 0;
    for (const OneShotInput& input : batch) longest = std::max(longest, int(input.tokens.size()));
    const TensorView rope = rope_ ? rope_->rows(longest, stream) : TensorView();
    const TensorView local = rope_local_ ? rope_local_->rows(longest, stream) : rope;
    const bool firsts = fusions_.firsts && stream.device().kind == tensor::DeviceKind::kCpu && read_firsts(batch);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Rows rows = firsts && i + 1 == layers_.size() ? Rows::kFirsts : Rows::kAll;
      for (const Block& block : blocks_) apply(layers_[i], block, x, is_local(i) ? local : rope, rows, step);
    }
    const TensorView last = firsts ? gather_firsts(x, step) : x;
    if (final_norm_) final_norm_->apply(last, last, step);
    return outputs(batch, last, step);
  }

  int64_t launches() const override { return launches_; }

 private:
  Encoder(EncoderConfig config, OneShotLoad& load)
      : config_(std::move(config)),
        source_(std::move(load.source)),
        fusions_(load.fusions),
        half_(load.precision != kernels::Precision::kFp32),
        cost_max_(std::max(load.batch_tokens_max, config_.tokens_max)),
        root_(*source_),
        body_(root_) {
    const std::string prefixed = config_.names.prefix + "." + config_.names.words + ".weight";
    if (!config_.names.prefix.empty() && !root_.contains(config_.names.words + ".weight") && root_.contains(prefixed))
      body_ = root_.scope(config_.names.prefix);
  }

  // Whole sequences that pass through a layer together: what is between its operations then stays in the caches.
  struct Block {
    int64_t begin = 0;
    std::vector<int32_t> offsets = {0};  // from its own first row
    int64_t rows() const { return offsets.back(); }
  };

  using Rows = nn::EncoderLayer::Rows;

  void apply(const nn::EncoderLayer& layer, const Block& block, TensorView x, TensorView rope, Rows rows,
             const nn::OneShotStep& step) const {
    nn::OneShotStep part = step;
    part.offsets = block.offsets;
    part.positions = step.positions.rows(block.begin, block.begin + block.rows());
    layer.apply(x.rows(block.begin, block.begin + block.rows()), rope, half_, part, rows);
  }

  // Whether what is asked for comes from the texts' first tokens alone.
  bool read_firsts(std::span<const OneShotInput> batch) const {
    return !layers_.empty() && std::ranges::all_of(batch, [&](const OneShotInput& input) {
      switch (input.output) {
        case OneShotOutput::kEmbedding:
          return sentence_->reads_firsts();
        case OneShotOutput::kScores:
          return classifier_ && classifier_->reads_firsts();
        case OneShotOutput::kPooled:
          return pooler_ && pooler_->reads_firsts();
        default:
          return false;
      }
    });
  }

  // The rows that the last layer put in front of each block, together; the step's sequences become one row each.
  TensorView gather_firsts(TensorView x, nn::OneShotStep& step) {
    int64_t sequences = 0;
    for (const Block& block : blocks_) {
      const int64_t count = int64_t(block.offsets.size()) - 1;
      const TensorView from = x.rows(block.begin, block.begin + count);
      std::copy_n(from.as<float>(), from.elements(), x.rows(sequences, sequences + count).as<float>());
      sequences += count;
    }
    offsets_.resize(size_t(sequences) + 1);
    std::iota(offsets_.begin(), offsets_.end(), 0);
    step.offsets = offsets_;
    return x.rows(0, sequences);
  }

  void cut_into_blocks(bool one) {
    blocks_.assign(1, {});
    for (size_t s = 0; s + 1 < offsets_.size(); ++s) {
      const int32_t rows = offsets_[s + 1] - offsets_[s];
      if (!one && blocks_.back().rows() > 0 && blocks_.back().rows() + rows > kBlockRows)
        blocks_.push_back({.begin = offsets_[s]});
      blocks_.back().offsets.push_back(int32_t(blocks_.back().rows()) + rows);
    }
  }

  bool is_local(size_t layer) const { return layer < config_.local_layers.size() && config_.local_layers[layer]; }

  Result<weights::StoredTensor> load_table(const std::string& name, int rows, nn::LoadContext& context) const {
    SW_ASSIGN(weights::StoredTensor table, body_.tensor(name + ".weight", {rows, config_.layer.hidden}));
    table.keep();
    context.totals.parameters += table.view().elements();
    context.totals.bytes += int64_t(table.view().bytes());
    return table;
  }

  // Both in the table's place.
  static kernels::QuantizedTable quantized(std::optional<weights::StoredTensor>& table, nn::LoadContext& context) {
    kernels::QuantizedTable out = kernels::quantize_table(table->view(), context.stream);
    context.totals.bytes += int64_t(out.values.bytes() + out.scales.bytes()) - int64_t(table->view().bytes());
    table.reset();
    return out;
  }

  static tensor::Tensor halved(std::optional<weights::StoredTensor>& table, nn::LoadContext& context) {
    const tensor::TensorView from = table->view();
    tensor::Tensor wide(tensor::DType::kF32, from.shape), out(tensor::DType::kF16, from.shape);
    weights::widen(from, wide.as<float>());
    for (int64_t i = 0; i < from.elements(); ++i) out.raw<uint16_t>()[i] = tensor::float_to_f16(wide.as<float>()[i]);
    context.totals.bytes += int64_t(out.bytes()) - int64_t(from.bytes());
    table.reset();
    return out;
  }

  Status load_embeddings(nn::LoadContext& context) {
    const EncoderNames& names = config_.names;
    SW_ASSIGN(words_, load_table(names.words, config_.vocab_size, context));
    const bool bytes = context.precision == kernels::Precision::kW8A8 && context.stream.device() == tensor::Device();
    if (bytes) quantized_words_ = quantized(words_, context);
    if (config_.position_rows > 0) {
      SW_ASSIGN(positions_table_, load_table(names.positions, config_.position_rows, context));
      if (bytes) positions_half_ = halved(positions_table_, context);
    }
    if (!names.types.empty() && config_.type_rows > 0) {
      SW_ASSIGN(types_, load_table(names.types, config_.type_rows, context));
    }
    SW_ASSIGN(embedding_norm_,
              nn::LayerNorm::load(body_, names.embedding_norm, config_.layer.hidden, config_.layer.epsilon, context));
    return {};
  }

  Status load_layers(nn::LoadContext& context) {
    for (int i = 0; i < config_.layers; ++i) {
      nn::EncoderLayerConfig layer = config_.layer;
      if (!is_local(size_t(i))) layer.window = 0;
      if (i == 0 && config_.first_norm_is_identity) layer.has_attention_norm = false;
      const nn::LayerNorm& before = i == 0 || layer.norm_before ? *embedding_norm_ : layers_.back().last_norm();
      SW_ASSIGN(nn::EncoderLayer loaded,
                nn::EncoderLayer::load(body_.scope(config_.names.layers, i), layer, !fusions_.qkv, before, context));
      layers_.push_back(std::move(loaded));
    }
    if (!config_.names.final_norm.empty()) {
      SW_ASSIGN(final_norm_, nn::LayerNorm::load(body_, config_.names.final_norm, config_.layer.hidden,
                                                 config_.layer.epsilon, context));
    }
    const int dim = config_.layer.hidden / config_.layer.heads;
    if (config_.rope_theta > 0) rope_.emplace(dim, config_.rope_theta, nn::RopeScaling{}, config_.tokens_max);
    if (config_.rope_theta_local > 0)
      rope_local_.emplace(dim, config_.rope_theta_local, nn::RopeScaling{}, config_.tokens_max);
    return {};
  }

  Status load_heads(const std::string& folder, nn::LoadContext& context) {
    const int hidden = config_.layer.hidden;
    const double epsilon = config_.layer.epsilon;
    const double layer_flops = context.totals.flops_per_token;
    SentenceConfig sentence;
    if (!folder.empty()) {
      SW_ASSIGN(sentence, read_sentence_config(folder));
    }
    SW_ASSIGN(sentence_, SentenceHead::load(sentence, hidden, context));
    if (config_.task == EncoderTask::kClassification) {
      SW_ASSIGN(classifier_, ClassifierHead::load(root_, config_.names.classifier, hidden, int(config_.labels.size()),
                                                  epsilon, context));
    } else if (config_.task == EncoderTask::kMaskedLm) {
      SW_ASSIGN(sparse_, SparseHead::load(root_, body_, config_, context));
    } else if (!config_.names.pooler.empty() && body_.contains(config_.names.pooler + ".weight")) {
      SW_ASSIGN(pooler_, ClassifierHead::load(body_, {.dense = config_.names.pooler, .norm = "", .output = ""}, hidden,
                                              0, epsilon, context));
    }
    if (config_.task != EncoderTask::kMaskedLm) context.totals.flops_per_token = layer_flops;  // heads run once a text
    return {};
  }

  void describe(const nn::LoadContext& context, const std::string& precision) {
    info_ = describe_encoder(config_, pooler_.has_value(), types_.has_value());
    info_.embedding_dims = sentence_->dims();
    info_.flops_per_token = int64_t(context.totals.flops_per_token);
    tell_loaded(context, precision, info_);
    arena_ = tensor::Arena(workspace_bytes());
  }

  size_t workspace_bytes() const {
    const auto bytes = [](int64_t rows, int64_t width) {
      return tensor::Arena::footprint(tensor::DType::kF32, {rows, width});
    };
    const int64_t hidden = config_.layer.hidden;
    size_t heads = 0;
    for (const int64_t width : {hidden, hidden, int64_t(sentence_->dims()), int64_t(config_.labels.size())})
      heads += 2 * bytes(kInputsMax, std::max<int64_t>(width, 1));
    if (sparse_) heads += SparseHead::workspace_bytes(config_, kInputsMax);
    return 2 * bytes(cost_max_, hidden) + nn::EncoderLayer::workspace_bytes(config_.layer, cost_max_) + heads;
  }

  void lay_out(std::span<const OneShotInput> batch) {
    SW_CHECK(!batch.empty() && int(batch.size()) <= kInputsMax, "batch of another size");
    ids_.clear();
    type_ids_.clear();
    positions_.clear();
    offsets_.assign(1, 0);
    for (const OneShotInput& input : batch) {
      ids_.insert(ids_.end(), input.tokens.begin(), input.tokens.end());
      for (size_t i = 0; i < input.tokens.size(); ++i) {
        positions_.push_back(int32_t(i));
        type_ids_.push_back(!input.types.empty() && config_.type_rows > 1 ? input.types[i] : 0);
      }
      offsets_.push_back(int32_t(ids_.size()));
    }
    SW_CHECK(int64_t(ids_.size()) <= cost_max_, "batch of more tokens than the workspace holds");
  }

  void embed(TensorView x, const nn::OneShotStep& step) {
    const auto list = [](std::vector<int32_t>& values) {
      return TensorView(values.data(), tensor::DType::kI32, {int64_t(values.size())});
    };
    kernels::EmbeddingNormArgs args;
    args.tokens = words_ ? words_->view() : quantized_words_->values.view();
    if (quantized_words_) args.token_scales = quantized_words_->scales;
    if (positions_table_) args.positions = positions_table_->view();
    if (positions_half_) args.positions = positions_half_->view();
    if (types_) args.types = types_->view();
    args.ids = list(ids_);
    args.position = list(positions_);
    args.type = list(type_ids_);
    args.first_position = config_.position_offset;
    args.y = x;
    if (fusions_.embedding_norm) {
      args.weight = embedding_norm_->weight();
      args.bias = embedding_norm_->bias();
      args.eps = embedding_norm_->epsilon();
    }
    kernels::embedding_norm(args, step.stream);
    step.count();
    if (words_) words_->read_places(int64_t(ids_.size()));
    if (!fusions_.embedding_norm) embedding_norm_->apply(x, x, step);
  }

  // Each kind of output is computed over the whole batch when somebody asked for it: heads are small.
  std::vector<TensorView> outputs(std::span<const OneShotInput> batch, TensorView x, const nn::OneShotStep& step) {
    std::map<OneShotOutput, TensorView> computed;
    std::vector<TensorView> list;
    for (size_t i = 0; i < batch.size(); ++i) {
      const OneShotOutput kind = batch[i].output;
      if (kind == OneShotOutput::kTokenVectors) {
        list.push_back(x.rows(offsets_[i], offsets_[i + 1]));
        continue;
      }
      auto [found, fresh] = computed.try_emplace(kind);
      if (fresh) found->second = compute(kind, x, step);
      const TensorView row = found->second.rows(int64_t(i), int64_t(i) + 1);
      list.push_back(row.reshaped({row.elements()}));
    }
    return list;
  }

  TensorView compute(OneShotOutput kind, TensorView x, const nn::OneShotStep& step) const {
    if (kind == OneShotOutput::kEmbedding) return sentence_->apply(x, step);
    if (kind == OneShotOutput::kScores && classifier_) return classifier_->apply(x, step);
    if (kind == OneShotOutput::kPooled && pooler_) return pooler_->apply(x, step);
    SW_CHECK(kind == OneShotOutput::kSparse && sparse_, "an output that the model does not offer");
    return sparse_->apply(x, step);
  }

  EncoderConfig config_;
  std::unique_ptr<weights::WeightSource> source_;
  nn::Fusions fusions_;
  bool half_;
  int64_t cost_max_;
  OneShotInfo info_;
  weights::WeightScope root_;
  weights::WeightScope body_;
  std::optional<weights::StoredTensor> words_, positions_table_, types_;
  std::optional<kernels::QuantizedTable> quantized_words_;  // instead of words_
  std::optional<tensor::Tensor> positions_half_;            // fp16, instead of positions_table_
  std::optional<nn::LayerNorm> embedding_norm_, final_norm_;
  std::vector<nn::EncoderLayer> layers_;
  std::optional<nn::RopeTable> rope_, rope_local_;
  std::optional<SentenceHead> sentence_;
  std::optional<ClassifierHead> classifier_, pooler_;
  std::optional<SparseHead> sparse_;
  tensor::Arena arena_{64};
  std::vector<Block> blocks_;
  std::vector<int32_t> ids_, type_ids_, positions_, offsets_;
  int64_t launches_ = 0;
};

}  // namespace

OneShotInfo describe_encoder(const EncoderConfig& config, bool has_pooler, bool has_types) {
  OneShotInfo info;
  info.architecture = config.architecture;
  switch (config.task) {
    case EncoderTask::kEmbedding:
      info.outputs = {OneShotOutput::kEmbedding, OneShotOutput::kTokenVectors};
      if (has_pooler) info.outputs.push_back(OneShotOutput::kPooled);
      break;
    case EncoderTask::kClassification:
      info.outputs = {OneShotOutput::kScores, OneShotOutput::kTokenVectors};
      break;
    case EncoderTask::kMaskedLm:
      info.outputs = {OneShotOutput::kSparse, OneShotOutput::kEmbedding, OneShotOutput::kTokenVectors};
      break;
  }
  info.vocab_size = config.vocab_size;
  info.hidden_size = config.layer.hidden;
  info.tokens_max = config.tokens_max;
  info.type_vocab_size = has_types ? config.type_rows : 0;
  info.labels = config.labels;
  info.multi_label = config.multi_label;
  return info;
}

Result<std::unique_ptr<OneShotModel>> load_encoder(const boost::json::object& config, OneShotLoad load) {
  if (load.stream.device().kind == tensor::DeviceKind::kCuda) return load_device_encoder(config, std::move(load));
  SW_ASSIGN(EncoderConfig parsed, parse_encoder_config(config));
  return Encoder::load(std::move(parsed), std::move(load));
}

}  // namespace spillway::models
