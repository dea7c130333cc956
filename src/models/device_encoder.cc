// Encoders on a device: the families of encoder.cc, computed over packed sequences of a bucket's size as one graph.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <boost/json/object.hpp>
#include <cstring>

#include "models/device_encoder_heads.h"
#include "models/one_shot_loader.h"
#include "models/step_graphs.h"
#include "tensor/cuda/cuda.h"

namespace spillway::models {
namespace {

using kernels::AttentionTile;
using kernels::DeviceNumbers;
using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

constexpr int kInputsMax = 256;
constexpr int64_t kGraphTokensMax = 4096;  // above, the device is busy for longer than the launches take
constexpr int kOutputs = 5;                // of OneShotOutput
constexpr int kSlots = 2;

// Rows that a batch is padded to: few sizes where it is recorded, so that a size soon comes again.
int64_t token_bucket(int64_t tokens) {
  int64_t step = 16;
  if (tokens <= kGraphTokensMax) step = std::max<int64_t>(16, int64_t(std::bit_ceil(uint64_t(tokens))) / 16);
  return (tokens + step - 1) / step * step;
}

int64_t sequence_bucket(int64_t sequences) { return int64_t(std::bit_ceil(uint64_t(sequences))); }

int64_t tiles_max(int64_t tokens, int64_t sequences) { return tokens / kernels::kAttentionTile + sequences; }

// One array of a batch's description.
struct Field {
  int64_t first = 0, count = 0;
};

// A batch as the device reads it: int32 arrays one behind another, the same places for the same bucket.
struct Layout {
  int64_t tokens = 0, sequences = 0;
  Field ids, positions, types, sequence, offsets, tiles;
  int64_t total = 0;

  Layout(int64_t tokens_in, int64_t sequences_in) : tokens(tokens_in), sequences(sequences_in) {
    for (Field* field : {&ids, &positions, &types, &sequence}) add(*field, tokens);
    add(offsets, sequences + 1);
    add(tiles, tiles_max(tokens, sequences) * 4);
  }

 private:
  void add(Field& field, int64_t count) {
    field = {total, count};
    total += (count + 63) / 64 * 64;
  }
};

class DeviceEncoder final : public OneShotModel {
 public:
  static Result<std::unique_ptr<OneShotModel>> load(EncoderConfig config, OneShotLoad load) {
    SW_TRY(kernels::check_device_numbers(load.numbers, load.stream.device()));
    const nn::Fusions& fusions = load.fusions;
    const bool fused = fusions.epilogue && fusions.residual_norm && fusions.embedding_norm;
    if (load.numbers == DeviceNumbers::kFp8 && !fused)
      return unsupported("precision fp8 quantises inside of its fused kernels: measure fusions in fp16 or bf16");
    if (config.layer.hidden / config.layer.heads > 128)
      return unsupported(fmt::format("heads on CUDA: expected at most 128 elements, found {}",
                                     config.layer.hidden / config.layer.heads));
    auto model = std::unique_ptr<DeviceEncoder>(new DeviceEncoder(std::move(config), load));
    nn::LoadContext context{.precision = load.precision, .stream = load.stream};
    SW_TRY(model->load_embeddings(context));
    SW_TRY(model->load_layers(context));
    SW_TRY(model->load_heads(load.folder, context));
    model->describe(context, load.precision_name);
    model->take_memory(load.stream.device());
    load.stream.synchronize();
    return std::unique_ptr<OneShotModel>(std::move(model));
  }

  const OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return cost_max_; }
  std::vector<int64_t> prepared_costs() const override {
    std::vector<int64_t> costs;
    for (int64_t tokens = token_bucket(1); tokens <= std::min(cost_max_, kGraphTokensMax);
         tokens = token_bucket(tokens + 1))
      costs.push_back(tokens);
    return costs;
  }
  int batch_inputs_max() const override { return kInputsMax; }
  int64_t launches() const override { return launches_; }

  std::vector<TensorView> run(std::span<const OneShotInput> batch, tensor::Stream& stream) override {
    stream.synchronize();  // what is in pinned memory is in use until then
    return run_in(0, batch, stream);
  }

  int slots() const override { return kSlots; }
  std::vector<TensorView> run_in(int slot, std::span<const OneShotInput> batch, tensor::Stream& stream) override {
    const auto [layout, wanted] = lay_out(batch, slots_[slot]);
    compute({layout, wanted, slot}, stream);
    return views(batch, slots_[slot]);
  }

  bool recompute(tensor::Stream& stream) override {
    if (!last_) return false;
    compute(*last_, stream);
    return true;
  }

 private:
  // What the host has of one batch.
  struct Slot {
    Tensor inputs;                 // pinned: its description
    Tensor outputs[kOutputs];      // pinned, by kind
    std::vector<int32_t> offsets;  // of its sequences
  };
  struct Pass {
    Layout layout;
    unsigned wanted;  // outputs, a bit each
    int slot;
  };

  DeviceEncoder(EncoderConfig config, OneShotLoad& load)
      : config_(std::move(config)),
        source_(std::move(load.source)),
        fusions_(load.fusions),
        numbers_(load.numbers),
        type_(kernels::activation_type(load.numbers)),
        cost_max_(std::max(load.batch_tokens_max, config_.tokens_max)),
        root_(*source_),
        body_(root_) {
    const std::string prefixed = config_.names.prefix + "." + config_.names.words + ".weight";
    if (!config_.names.prefix.empty() && !root_.contains(config_.names.words + ".weight") && root_.contains(prefixed))
      body_ = root_.scope(config_.names.prefix);
  }

  bool is_local(size_t layer) const { return layer < config_.local_layers.size() && config_.local_layers[layer]; }

  Result<Tensor> load_table(const std::string& name, int rows, nn::LoadContext& context) const {
    SW_ASSIGN(const Tensor values, body_.f32(name + ".weight", {rows, config_.layer.hidden}));
    Tensor table(type_, values.shape(), context.stream.device());
    const int64_t elements = values.shape().elements();
    Tensor wide(DType::kF32, values.shape(), context.stream.device());
    context.stream.upload(wide.view().data, values.view().data, values.bytes());
    kernels::device_convert(wide, table, context.stream);
    context.stream.synchronize();  // before `wide` goes
    context.totals.parameters += elements;
    context.totals.bytes += int64_t(table.bytes());
    return table;
  }

  Status load_embeddings(nn::LoadContext& context) {
    const EncoderNames& names = config_.names;
    SW_ASSIGN(words_, load_table(names.words, config_.vocab_size, context));
    if (config_.position_rows > 0) {
      SW_ASSIGN(position_table_, load_table(names.positions, config_.position_rows, context));
    }
    if (!names.types.empty() && config_.type_rows > 0) {
      SW_ASSIGN(types_, load_table(names.types, config_.type_rows, context));
    }
    SW_ASSIGN(embedding_norm_,
              nn::LayerNorm::load(body_, names.embedding_norm, config_.layer.hidden, config_.layer.epsilon, context));
    bound_ = nn::bound_of(*embedding_norm_);
    embedding_norm_->place(context.stream);
    return {};
  }

  Status load_layers(nn::LoadContext& context) {
    for (int i = 0; i < config_.layers; ++i) {
      nn::EncoderLayerConfig layer = config_.layer;
      if (!is_local(size_t(i))) layer.window = 0;
      if (i == 0 && config_.first_norm_is_identity) layer.has_attention_norm = false;
      SW_ASSIGN(nn::DeviceEncoderLayer loaded, nn::DeviceEncoderLayer::load(body_.scope(config_.names.layers, i), layer,
                                                                            numbers_, !fusions_.qkv, bound_, context));
      layers_.push_back(std::move(loaded));
    }
    if (!config_.names.final_norm.empty()) {
      SW_ASSIGN(final_norm_, nn::LayerNorm::load(body_, config_.names.final_norm, config_.layer.hidden,
                                                 config_.layer.epsilon, context));
      final_norm_->place(context.stream);
    }
    const int dim = config_.layer.hidden / config_.layer.heads;
    if (config_.rope_theta > 0) rope_.emplace(dim, config_.rope_theta, nn::RopeScaling{}, config_.tokens_max);
    if (config_.rope_theta_local > 0)
      rope_local_.emplace(dim, config_.rope_theta_local, nn::RopeScaling{}, config_.tokens_max);
    for (auto* rope : {&rope_, &rope_local_}) {
      if (*rope) (*rope)->place(context.stream);
    }
    return {};
  }

  Status load_heads(const std::string& folder, nn::LoadContext& context) {
    const int hidden = config_.layer.hidden;
    const double epsilon = config_.layer.epsilon, layer_flops = context.totals.flops_per_token;
    SentenceConfig sentence;
    if (!folder.empty()) {
      SW_ASSIGN(sentence, read_sentence_config(folder));
    }
    SW_ASSIGN(sentence_, DeviceSentenceHead::load(sentence, hidden, numbers_, context));
    if (config_.task == EncoderTask::kClassification) {
      SW_ASSIGN(classifier_, DeviceClassifierHead::load(root_, config_.names.classifier, hidden,
                                                        int(config_.labels.size()), epsilon, numbers_, context));
    } else if (config_.task == EncoderTask::kMaskedLm) {
      SW_ASSIGN(sparse_, DeviceSparseHead::load(root_, body_, config_, numbers_, context));
    } else if (!config_.names.pooler.empty() && body_.contains(config_.names.pooler + ".weight")) {
      SW_ASSIGN(pooler_, DeviceClassifierHead::load(body_, {.dense = config_.names.pooler, .norm = "", .output = ""},
                                                    hidden, 0, epsilon, numbers_, context));
    }
    if (config_.task != EncoderTask::kMaskedLm) context.totals.flops_per_token = layer_flops;  // heads run once a text
    return {};
  }

  void describe(const nn::LoadContext& context, const std::string& precision) {
    info_ = describe_encoder(config_, pooler_.has_value(), types_.has_value());
    info_.embedding_dims = sentence_->dims();
    info_.flops_per_token = int64_t(context.totals.flops_per_token);
    tell_loaded(context, precision, info_);
  }

  bool offers(OneShotOutput kind) const {
    return std::find(info_.outputs.begin(), info_.outputs.end(), kind) != info_.outputs.end();
  }

  int64_t width_of(OneShotOutput kind) const {
    switch (kind) {
      case OneShotOutput::kEmbedding:
        return info_.embedding_dims;
      case OneShotOutput::kScores:
        return int64_t(info_.labels.size());
      case OneShotOutput::kSparse:
        return info_.vocab_size;
      default:
        return info_.hidden_size;
    }
  }

  // All memory of all batches, at load: nothing is allocated afterwards.
  void take_memory(tensor::Device device) {
    const int64_t rows = token_bucket(cost_max_), hidden = config_.layer.hidden, inner = config_.layer.intermediate;
    const Layout layout(rows, kInputsMax);
    const tensor::Device pinned{tensor::DeviceKind::kPinned, 0};
    inputs_ = Tensor(DType::kI32, {layout.total}, device);
    for (Slot& slot : slots_) {
      slot.inputs = Tensor(DType::kI32, {layout.total}, pinned);
      for (int i = 0; i < kOutputs; ++i) {
        const auto kind = OneShotOutput(i);
        if (!offers(kind)) continue;
        slot.outputs[i] =
            Tensor(DType::kF32, {kind == OneShotOutput::kTokenVectors ? rows : kInputsMax, width_of(kind)}, pinned);
      }
    }
    const bool fp8 = numbers_ == DeviceNumbers::kFp8;
    struct Part {
      TensorView* view;
      DType type;
      int64_t width;
    };
    const std::vector<Part> parts = {{&memory_.x, type_, hidden},
                                     {&memory_.sum, type_, hidden},
                                     {&memory_.normed, type_, config_.layer.norm_before ? hidden : 0},
                                     {&memory_.qkv, type_, 3 * hidden},
                                     {&memory_.attended, type_, fp8 ? 0 : hidden},
                                     {&memory_.inner, type_, fp8 ? 0 : inner},
                                     {&memory_.both, type_, config_.layer.gated ? 2 * inner : 0},
                                     {&memory_.x8, DType::kF8E4M3, fp8 ? hidden : 0},
                                     {&memory_.attended8, DType::kF8E4M3, fp8 ? hidden : 0},
                                     {&memory_.inner8, DType::kF8E4M3, fp8 ? inner : 0},
                                     {&memory_.vectors, DType::kF32, hidden}};
    size_t bytes = head_bytes();
    for (const Part& part : parts) bytes += tensor::Arena::footprint(part.type, {rows, part.width});
    arena_ = tensor::Arena(bytes, device);
    for (const Part& part : parts) {
      if (part.width > 0) *part.view = arena_.allocate(part.type, {rows, part.width});
    }
    heads_mark_ = arena_.mark();
  }

  size_t head_bytes() const {
    const auto bytes = [](int64_t width) { return tensor::Arena::footprint(DType::kF32, {kInputsMax, width}); };
    const int64_t widest =
        std::max<int64_t>({config_.layer.hidden, info_.embedding_dims, int64_t(info_.labels.size()), int64_t{4096}});
    return 12 * bytes(widest) + (sparse_ ? DeviceSparseHead::workspace_bytes(config_, kInputsMax) : 0);
  }

  // Writes the batch to pinned memory; gives its layout and which outputs it wants, a bit each.
  std::pair<Layout, unsigned> lay_out(std::span<const OneShotInput> batch, Slot& slot) const {
    SW_CHECK(!batch.empty() && int(batch.size()) <= kInputsMax, "batch of another size");
    int64_t tokens = 0;
    unsigned wanted = 0;
    for (const OneShotInput& input : batch) {
      tokens += int64_t(input.tokens.size());
      wanted |= 1u << unsigned(input.output);
    }
    SW_CHECK(tokens <= cost_max_, "batch of more tokens than the workspace holds");
    const Layout layout(token_bucket(tokens), sequence_bucket(int64_t(batch.size())));
    auto* base = slot.inputs.as<int32_t>();
    const auto at = [&](const Field& field) { return base + field.first; };
    int32_t *ids = at(layout.ids), *positions = at(layout.positions), *types = at(layout.types),
            *sequence = at(layout.sequence), *offsets = at(layout.offsets);
    auto* tile = reinterpret_cast<AttentionTile*>(at(layout.tiles));
    const AttentionTile* tiles_end = tile + layout.tiles.count / 4;
    int32_t row = 0;
    std::vector<int32_t>& ends = slot.offsets;
    ends.assign(1, 0);
    for (size_t s = 0; s < batch.size(); ++s) {
      const OneShotInput& input = batch[s];
      const auto length = int32_t(input.tokens.size());
      std::copy(input.tokens.begin(), input.tokens.end(), ids + row);
      const bool typed = !input.types.empty() && config_.type_rows > 1;
      for (int32_t i = 0; i < length; ++i) {
        positions[row + i] = i;
        types[row + i] = typed ? input.types[size_t(i)] : 0;
        sequence[row + i] = int32_t(s);
      }
      for (int32_t i = 0; i < length; i += kernels::kAttentionTile) *tile++ = {row + i, row, row + length, 0};
      row += length;
      ends.push_back(row);
    }
    for (int64_t i = row; i < layout.tokens; ++i) {  // padding: any token, of no sequence
      ids[i] = positions[i] = types[i] = 0;
      sequence[i] = -1;
    }
    for (int64_t s = 0; s <= layout.sequences; ++s) offsets[s] = s < int64_t(ends.size()) ? ends[size_t(s)] : row;
    std::fill(tile, const_cast<AttentionTile*>(tiles_end), AttentionTile{});
    return {layout, wanted};
  }

  void compute(const Pass& batch, tensor::Stream& stream) {
    last_ = batch;
    const auto& [layout, wanted, slot] = batch;
    const int64_t key = layout.tokens * (1 << 16) + layout.sequences * (1 << 6) + wanted * kSlots + slot;
    static_assert((1 << kOutputs) * kSlots <= 1 << 6);
    int64_t& launches = launches_of_[key];
    const auto pass = [&] {
      launches = 0;
      stream.cuda().upload_pinned(inputs_.view().data, slots_[batch.slot].inputs.view().data,
                                  size_t(batch.layout.total) * 4);
      run_pass(batch, launches, stream);
    };
    if (layout.tokens > kGraphTokensMax) {
      pass();
    } else {
      graphs_.run(key, inputs_.view().data, stream, pass);
    }
    launches_ = launches;
  }

  void run_pass(const Pass& batch, int64_t& launches, tensor::Stream& stream) {
    const Layout& layout = batch.layout;
    const auto on_device = [&](const Field& field, tensor::Shape shape) {
      return TensorView(inputs_.as<int32_t>() + field.first, DType::kI32, shape);
    };
    const auto rows = [&](const TensorView& view) { return view.empty() ? view : view.rows(0, layout.tokens); };
    nn::DevicePass pass{.stream = stream,
                        .fusions = fusions_,
                        .tiles = on_device(layout.tiles, {layout.tiles.count / 4, 4}),
                        .positions = on_device(layout.positions, {layout.tokens}),
                        .x = rows(memory_.x),
                        .sum = rows(memory_.sum),
                        .normed = rows(memory_.normed),
                        .qkv = rows(memory_.qkv),
                        .attended = rows(memory_.attended),
                        .inner = rows(memory_.inner),
                        .both = rows(memory_.both),
                        .x8 = rows(memory_.x8),
                        .attended8 = rows(memory_.attended8),
                        .inner8 = rows(memory_.inner8),
                        .launches = &launches};
    embed(layout, pass);
    const TensorView rope = rope_ ? rope_->rows(0, stream) : TensorView();
    const TensorView local = rope_local_ ? rope_local_->rows(0, stream) : rope;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const bool last = i + 1 == layers_.size();
      layers_[i].apply(is_local(i) ? local : rope, last ? nullptr : layers_[i + 1].input_scale(), pass);
    }
    if (final_norm_) norm_in_place(*final_norm_, pass);
    arena_.rewind(heads_mark_);
    const DeviceHeadPass head{.pass = pass,
                              .arena = arena_,
                              .offsets = on_device(layout.offsets, {layout.sequences + 1}),
                              .sequence = on_device(layout.sequence, {layout.tokens})};
    for (int kind = 0; kind < kOutputs; ++kind) {
      if ((batch.wanted >> kind & 1) == 0) continue;
      const TensorView result = output(OneShotOutput(kind), head);
      stream.cuda().download_pinned(slots_[batch.slot].outputs[kind].view().data, result.data, result.bytes());
    }
  }

  void embed(const Layout& layout, const nn::DevicePass& pass) {
    const auto on_device = [&](const Field& field) {
      return TensorView(inputs_.as<int32_t>() + field.first, DType::kI32, {field.count});
    };
    kernels::DeviceNormArgs args;
    args.tokens = words_;
    if (!position_table_.empty()) args.positions = position_table_;
    if (types_) args.types = *types_;
    args.ids = on_device(layout.ids);
    args.position = on_device(layout.positions);
    args.type = on_device(layout.types);
    args.first_position = config_.position_offset;
    args.y = pass.x;
    if (fusions_.embedding_norm) {
      args.weight = embedding_norm_->weight();
      if (!embedding_norm_->bias().empty()) args.bias = embedding_norm_->bias();
      args.eps = embedding_norm_->epsilon();
      args.scale = layers_.empty() ? nullptr : layers_[0].input_scale();
      if (args.scale != nullptr) args.y8 = pass.x8;
    }
    kernels::device_norm(args, pass.stream);
    pass.count();
    if (!fusions_.embedding_norm) norm_in_place(*embedding_norm_, pass);
  }

  void norm_in_place(const nn::LayerNorm& norm, const nn::DevicePass& pass) const {
    kernels::DeviceNormArgs args;
    args.x = args.y = pass.x;
    args.weight = norm.weight();
    if (!norm.bias().empty()) args.bias = norm.bias();
    args.eps = norm.epsilon();
    kernels::device_norm(args, pass.stream);
    pass.count();
  }

  TensorView output(OneShotOutput kind, const DeviceHeadPass& head) const {
    if (kind == OneShotOutput::kTokenVectors) {
      const TensorView vectors = memory_.vectors.rows(0, head.pass.x.shape[0]);
      kernels::device_convert(head.pass.x, vectors, head.pass.stream);
      head.pass.count();
      return vectors;
    }
    if (kind == OneShotOutput::kEmbedding) return sentence_->apply(head.pass.x, head);
    if (kind == OneShotOutput::kScores && classifier_) return classifier_->apply(head.pass.x, head);
    if (kind == OneShotOutput::kPooled && pooler_) return pooler_->apply(head.pass.x, head);
    SW_CHECK(kind == OneShotOutput::kSparse && sparse_, "an output that the model does not offer");
    return sparse_->apply(head.pass.x, head);
  }

  static std::vector<TensorView> views(std::span<const OneShotInput> batch, const Slot& slot) {
    std::vector<TensorView> list;
    for (size_t i = 0; i < batch.size(); ++i) {
      const TensorView all = slot.outputs[size_t(batch[i].output)];
      if (batch[i].output == OneShotOutput::kTokenVectors) {
        list.push_back(all.rows(slot.offsets[i], slot.offsets[i + 1]));
      } else {
        list.push_back(all.rows(int64_t(i), int64_t(i) + 1).reshaped({all.shape[1]}));
      }
    }
    return list;
  }

  struct Memory {
    TensorView x, sum, normed, qkv, attended, inner, both, x8, attended8, inner8;
    TensorView vectors;  // f32
  };

  EncoderConfig config_;
  std::unique_ptr<weights::WeightSource> source_;
  nn::Fusions fusions_;
  DeviceNumbers numbers_;
  DType type_;  // of activations
  int64_t cost_max_;
  OneShotInfo info_;
  weights::WeightScope root_;
  weights::WeightScope body_;
  Tensor words_, position_table_;
  std::optional<Tensor> types_;
  std::optional<nn::LayerNorm> embedding_norm_, final_norm_;
  nn::Bound bound_;  // of the next layer's input, while loading
  std::vector<nn::DeviceEncoderLayer> layers_;
  std::optional<nn::RopeTable> rope_, rope_local_;
  std::optional<DeviceSentenceHead> sentence_;
  std::optional<DeviceClassifierHead> classifier_, pooler_;
  std::optional<DeviceSparseHead> sparse_;
  tensor::Arena arena_{64};
  Memory memory_;
  size_t heads_mark_ = 0;
  Tensor inputs_;  // the batch's description
  Slot slots_[kSlots];
  std::optional<Pass> last_;
  std::map<int64_t, int64_t> launches_of_;
  int64_t launches_ = 0;
  StepGraphs graphs_;
};

}  // namespace

Result<std::unique_ptr<OneShotModel>> load_device_encoder(const boost::json::object& config, OneShotLoad load) {
  SW_ASSIGN(EncoderConfig parsed, parse_encoder_config(config));
  return DeviceEncoder::load(std::move(parsed), std::move(load));
}

}  // namespace spillway::models
