#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "models/one_shot_loader.h"
#include "models/verify.h"

namespace spillway::models {
namespace {

using tensor::TensorView;

// What an output's name in the file asks of the model.
struct NamedOutput {
  std::string_view name;
  OneShotOutput output;
};
constexpr NamedOutput kOutputs[] = {
    {"last_hidden_state", OneShotOutput::kTokenVectors},
    {"mean_pooled_l2", OneShotOutput::kTokenVectors},
    {"embedding", OneShotOutput::kEmbedding},
    {"pooler_output", OneShotOutput::kPooled},
    {"logits", OneShotOutput::kScores},
    {"sparse", OneShotOutput::kSparse},
};

std::vector<float> normalized_mean(const std::vector<float>& rows, size_t width) {
  std::vector<double> mean(width);
  for (size_t i = 0; i < rows.size(); ++i) mean[i % width] += double(rows[i]);
  double squares = 0;
  for (const double value : mean) squares += value * value;
  std::vector<float> out;
  for (const double value : mean) out.push_back(float(value / std::sqrt(squares)));
  return out;
}

class OneShotVerification {
 public:
  static Result<VerifyReport> run(const VerifyOptions& options) {
    OneShotVerification v;
    SW_ASSIGN(v.expected_, weights::open_safetensors(options.expected_path));
    SW_ASSIGN(v.model_, load_one_shot_model(options.load));
    SW_ASSIGN(v.stream_, tensor::Stream::open(options.load.device, options.load.threads));
    v.report_.architecture = v.model_->info().architecture;
    v.report_.precision = v.model_->info().precision;
    v.tolerance_ = options.tolerance > 0 ? options.tolerance : default_tolerance(v.report_.precision);
    SW_TRY(v.model_->info().vision ? v.read_images() : v.read_texts());
    for (const std::string& name : v.expected_->names()) SW_TRY(v.compare(name));
    return std::move(v.report_);
  }

 private:
  Status read_texts() {
    SW_ASSIGN(const weights::StoredTensor ids, expected_->open("input_ids", {}, {}));
    if (ids.shape().rank() != 2 || ids.shape().elements() == 0) {
      return invalid(
          fmt::format("'input_ids': expected [sequences, tokens], found {}", tensor::to_string(ids.shape())));
    }
    sequences_ = ids.shape()[0];
    length_ = ids.shape()[1];
    SW_ASSIGN(ids_, read_ids(ids.view(), "input_ids", model_->info().vocab_size));
    SW_ASSIGN(mask_, read_optional("attention_mask", 2, 1));
    SW_ASSIGN(types_, read_optional("token_type_ids", std::max(1, model_->info().type_vocab_size), 0));
    for (int64_t s = 0; s < sequences_; ++s) {
      std::vector<int32_t> tokens, types;
      for (int64_t i = s * length_; i < (s + 1) * length_; ++i) {
        if (mask_[size_t(i)] == 0) continue;
        tokens.push_back(ids_[size_t(i)]);
        types.push_back(types_[size_t(i)]);
      }
      tokens_of_.push_back(std::move(tokens));
      types_of_.push_back(std::move(types));
    }
    return {};
  }

  Result<std::vector<int32_t>> read_optional(const std::string& name, int limit, int32_t missing) const {
    if (!expected_->contains(name)) return std::vector<int32_t>(ids_.size(), missing);
    SW_ASSIGN(const weights::StoredTensor stored, expected_->open(name, {}, {}));
    if (stored.shape().elements() != int64_t(ids_.size())) {
      return invalid(fmt::format("'{}': expected as many elements as input_ids, found {}", name,
                                 tensor::to_string(stored.shape())));
    }
    return read_ids(stored.view(), name, limit);
  }

  Status read_images() {
    SW_ASSIGN(const weights::StoredTensor pixels, expected_->open("pixel_values", {}, {}));
    const tensor::Shape& shape = pixels.shape();
    if (shape.rank() != 4 || shape.elements() == 0 || pixels.view().dtype != tensor::DType::kF32) {
      return invalid(fmt::format("'pixel_values': expected f32 [images, channels, height, width], found {} {}",
                                 tensor::name_of(pixels.view().dtype), tensor::to_string(shape)));
    }
    sequences_ = shape[0];
    height_ = int(shape[2]);
    width_ = int(shape[3]);
    pixels_.resize(size_t(shape.elements()));
    std::memcpy(pixels_.data(), pixels.view().data, pixels.view().bytes());
    return {};
  }

  Result<std::vector<std::vector<float>>> answers(OneShotOutput output) {
    std::vector<std::vector<float>> all;
    for (int64_t s = 0; s < sequences_;) {
      std::vector<OneShotInput> batch;
      int64_t cost = 0;
      for (; s < sequences_ && int(batch.size()) < model_->batch_inputs_max(); ++s) {
        const OneShotInput input = input_of(size_t(s), output);
        SW_TRY(check_input(model_->info(), input));
        if (!batch.empty() && cost + input.cost() > model_->batch_cost_max()) break;
        cost += input.cost();
        batch.push_back(input);
      }
      const std::vector<TensorView> outputs = model_->run(batch, stream_);
      stream_.synchronize();
      for (const TensorView& view : outputs) all.emplace_back(view.as<float>(), view.as<float>() + view.elements());
    }
    return all;
  }

  OneShotInput input_of(size_t s, OneShotOutput output) const {
    OneShotInput input;
    input.output = output;
    if (pixels_.empty()) {
      input.tokens = tokens_of_[s];
      input.types = types_of_[s];
      return input;
    }
    const size_t each = pixels_.size() / size_t(sequences_);
    input.pixels = std::span(pixels_).subspan(s * each, each);
    input.height = height_;
    input.width = width_;
    return input;
  }

  Status compare(const std::string& name) {
    for (const std::string_view input : {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}) {
      if (name == input) return {};
    }
    const auto named = std::find_if(std::begin(kOutputs), std::end(kOutputs),
                                    [&](const NamedOutput& row) { return row.name == name; });
    if (named == std::end(kOutputs)) {
      return invalid(
          fmt::format("'{}': expected an output named last_hidden_state, mean_pooled_l2, embedding, "
                      "pooler_output, logits or sparse",
                      name));
    }
    SW_ASSIGN(const weights::StoredTensor stored, expected_->open(name, {}, {}));
    SW_ASSIGN(auto found, answers(named->output));
    const size_t width = size_t(stored.shape()[-1]);
    if (name == "mean_pooled_l2") {
      for (auto& rows : found) rows = normalized_mean(rows, size_t(model_->info().hidden_size));
    }
    std::vector<float> flat;
    for (const auto& rows : found) flat.insert(flat.end(), rows.begin(), rows.end());
    const std::vector<float> reference = reference_rows(stored.view(), name == "last_hidden_state");
    if (stored.view().dtype != tensor::DType::kF32 || reference.size() != flat.size()) {
      return invalid(fmt::format("'{}': expected f32 of {} values, found {} {}", name, flat.size(),
                                 tensor::name_of(stored.view().dtype), tensor::to_string(stored.shape())));
    }
    VerifyRow row{.name = name, .shape = tensor::to_string(stored.shape()), .tolerance = tolerance_};
    compare_rows(reference, flat, width, row);
    row.passed = (report_.precision == "fp32" ? row.max_rel : row.median_rel) <= tolerance_;
    report_.rows.push_back(std::move(row));
    return {};
  }

  // The stored values; of hidden states only those inside the mask.
  std::vector<float> reference_rows(const TensorView& view, bool by_token) const {
    std::vector<float> all(view.dtype == tensor::DType::kF32 ? size_t(view.elements()) : 0);
    std::memcpy(all.data(), view.data, all.size() * 4);
    if (!by_token || all.size() % mask_.size() != 0) return all;
    const size_t width = all.size() / mask_.size();
    std::vector<float> kept;
    for (size_t i = 0; i < mask_.size(); ++i) {
      if (mask_[i] != 0) kept.insert(kept.end(), all.begin() + long(i * width), all.begin() + long((i + 1) * width));
    }
    return kept;
  }

  std::unique_ptr<weights::WeightSource> expected_;
  std::unique_ptr<OneShotModel> model_;
  tensor::Stream stream_{1};
  VerifyReport report_;
  double tolerance_ = 0;
  int64_t sequences_ = 0, length_ = 0;
  int height_ = 0, width_ = 0;
  std::vector<int32_t> ids_, mask_, types_;
  std::vector<std::vector<int32_t>> tokens_of_, types_of_;
  std::vector<float> pixels_;
};

}  // namespace

Result<VerifyReport> verify_one_shot(const VerifyOptions& options) { return OneShotVerification::run(options); }

}  // namespace spillway::models
