#include "models/verify.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <cmath>
#include <cstring>
#include <numeric>

#include "models/model_folder.h"
#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

constexpr int kPageTokens = 16;

class Verification {
 public:
  static Result<VerifyReport> run(const VerifyOptions& options) {
    Verification v;
    SW_ASSIGN(v.expected_, weights::open_safetensors(options.expected_path));
    SW_ASSIGN(const weights::StoredTensor ids, v.expected_->open("input_ids", {}, {}));
    if (ids.shape().rank() != 2 || ids.shape().elements() == 0) {
      return invalid(
          fmt::format("'input_ids': expected [sequences, tokens], found {}", tensor::to_string(ids.shape())));
    }
    LoadOptions load = options.load;
    load.batch_tokens_max = int(std::max<int64_t>(load.batch_tokens_max, ids.shape().elements()));
    SW_ASSIGN(v.model_, load_model(load));
    SW_ASSIGN(v.stream_, tensor::Stream::open(load.device, load.threads));
    v.report_.architecture = v.model_->info().architecture;
    v.report_.precision = v.model_->info().precision;
    v.tolerance_ = options.tolerance > 0 ? options.tolerance : default_tolerance(v.report_.precision);
    SW_ASSIGN(v.ids_, read_ids(ids.view(), "input_ids", v.model_->info().vocab_size));
    v.sequences_ = ids.shape()[0];
    v.tokens_ = ids.shape()[1];
    SW_TRY(v.compare_all(load.device));
    return std::move(v.report_);
  }

 private:
  Status compare_all(tensor::Device device) {
    const int64_t longest = std::max<int64_t>(4096, tokens_);
    const int pages = int((longest + kPageTokens - 1) / kPageTokens * std::max<int64_t>(1, sequences_));
    SW_ASSIGN(nn::KvStorage kv, nn::KvStorage::create(model_->info().kv, kPageTokens, pages, device));
    for (const std::string& name : expected_->names()) {
      if (name == "input_ids") continue;
      SW_ASSIGN(const weights::StoredTensor stored, expected_->open(name, {}, {}));
      if (name == "logits" || name == "logits_dequantised") {
        SW_TRY(compare_logits(name, stored.view(), kv));
      } else if (name == "greedy") {
        SW_TRY(compare_greedy(stored.view(), kv));
      } else {
        return invalid(fmt::format("'{}': expected an output named logits, logits_dequantised or greedy", name));
      }
    }
    return {};
  }

  Status compare_logits(const std::string& name, const tensor::TensorView& expected, nn::KvStorage& kv) {
    const tensor::Shape shape{sequences_, tokens_, model_->info().vocab_size};
    if (!(expected.shape == shape) || expected.dtype != tensor::DType::kF32) {
      return invalid(fmt::format("'{}': expected f32 {}, found {} {}", name, tensor::to_string(shape),
                                 tensor::name_of(expected.dtype), tensor::to_string(expected.shape)));
    }
    std::vector<float> reference(size_t(expected.elements()));
    std::memcpy(reference.data(), expected.data, expected.bytes());
    const int64_t pages_each = kv.pages() / sequences_;
    std::vector<int32_t> pages(size_t(kv.pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::vector<SequenceInput> batch;
    for (int64_t s = 0; s < sequences_; ++s) {
      batch.push_back({.tokens = std::span(ids_).subspan(size_t(s * tokens_), size_t(tokens_)),
                       .position = 0,
                       .pages = std::span(pages).subspan(size_t(s * pages_each), size_t(pages_each)),
                       .logits_rows = int32_t(tokens_)});
    }
    const tensor::TensorView logits = model_->forward(batch, kv, stream_);
    stream_.synchronize();
    VerifyRow row{.name = name, .shape = tensor::to_string(expected.shape), .tolerance = tolerance_};
    const std::vector<float> found(logits.as<float>(), logits.as<float>() + reference.size());
    compare_rows(reference, found, size_t(model_->info().vocab_size), row);
    row.passed = (report_.precision == "fp32" ? row.max_rel : row.median_rel) <= tolerance_;
    report_.rows.push_back(std::move(row));
    return {};
  }

  Status compare_greedy(const tensor::TensorView& expected, nn::KvStorage& kv) {
    if (expected.shape.rank() != 2 || expected.shape[0] != 1 || expected.shape[1] <= tokens_) {
      return invalid(
          fmt::format("'greedy': expected [1, more than {}], found {}", tokens_, tensor::to_string(expected.shape)));
    }
    SW_ASSIGN(const std::vector<int32_t> reference, read_ids(expected, "greedy", model_->info().vocab_size));
    if (int64_t(reference.size()) > int64_t(kv.pages()) * kPageTokens)
      return invalid("'greedy': longer than 4096 tokens");
    std::vector<int32_t> pages(size_t(kv.pages()));
    std::iota(pages.begin(), pages.end(), 0);
    std::vector<int32_t> tokens(reference.begin(), reference.begin() + tokens_);
    int32_t position = 0;
    while (tokens.size() < reference.size()) {
      const SequenceInput input{.tokens = std::span(tokens).subspan(size_t(position)),
                                .position = position,
                                .pages = pages,
                                .logits_rows = 1};
      const tensor::TensorView logits = model_->forward(std::span(&input, 1), kv, stream_);
      stream_.synchronize();
      position = int32_t(tokens.size());
      const float* row = logits.as<float>();
      tokens.push_back(int32_t(std::max_element(row, row + logits.shape[1]) - row));
    }
    VerifyRow row{.name = "greedy", .shape = tensor::to_string(expected.shape)};
    for (size_t i = 0; i < tokens.size(); ++i) row.max_abs += tokens[i] != reference[i];
    row.max_rel = row.max_abs / double(reference.size() - size_t(tokens_));
    row.passed = row.max_abs == 0;
    report_.rows.push_back(std::move(row));
    return {};
  }

  std::unique_ptr<weights::WeightSource> expected_;
  std::unique_ptr<LanguageModel> model_;
  tensor::Stream stream_;
  std::vector<int32_t> ids_;
  int64_t sequences_ = 0, tokens_ = 0;
  double tolerance_ = 0;
  VerifyReport report_;
};

}  // namespace

Result<std::vector<int32_t>> read_ids(const tensor::TensorView& view, const std::string& name, int limit) {
  std::vector<int32_t> ids;
  const bool wide = view.dtype == tensor::DType::kI64;
  if (!wide && view.dtype != tensor::DType::kI32)
    return invalid(fmt::format("'{}': expected i32 or i64, found {}", name, tensor::name_of(view.dtype)));
  for (int64_t i = 0; i < view.elements(); ++i) {
    int64_t id = 0;
    if (wide) {
      std::memcpy(&id, view.data + i * 8, 8);
    } else {
      int32_t narrow;
      std::memcpy(&narrow, view.data + i * 4, 4);
      id = narrow;
    }
    if (id < 0 || id >= limit)
      return invalid(fmt::format("'{}': expected numbers in [0, {}), found {}", name, limit, id));
    ids.push_back(int32_t(id));
  }
  return ids;
}

void compare_rows(const std::vector<float>& reference, const std::vector<float>& found, size_t width, VerifyRow& row) {
  SW_CHECK(reference.size() == found.size() && !found.empty(), "comparing different shapes");
  std::vector<double> apart(reference.size() / width);
  double largest = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double difference = std::isfinite(found[i]) ? std::abs(double(found[i]) - double(reference[i])) : INFINITY;
    apart[i / width] = std::max(apart[i / width], difference);
    largest = std::max(largest, std::abs(double(reference[i])));
  }
  for (size_t begin = 0; begin < reference.size(); begin += width) {
    double product = 0, a = 0, b = 0;
    for (size_t i = begin; i < begin + width; ++i) {
      product += double(found[i]) * double(reference[i]);
      a += double(found[i]) * double(found[i]);
      b += double(reference[i]) * double(reference[i]);
    }
    if (a > 0 && b > 0) row.cosine = std::min(row.cosine, product / std::sqrt(a * b));
  }
  std::sort(apart.begin(), apart.end());
  const double scale = largest > 0 ? largest : 1;
  row.max_abs = apart.back();
  row.max_rel = apart.back() / scale;
  row.median_rel = apart[apart.size() / 2] / scale;
}

bool VerifyReport::passed() const {
  return !rows.empty() && std::all_of(rows.begin(), rows.end(), [](const VerifyRow& row) { return row.passed; });
}

double default_tolerance(const std::string& precision) {
  if (precision == "fp32") return 1e-4;
  if (precision == "tf32" || precision == "fp16") return 0.01;
  if (precision == "fp8") return 0.15;
  return precision == "bf16" ? 0.03 : 0.08;
}

Result<VerifyReport> verify(const VerifyOptions& options) {
  SW_ASSIGN(const auto config, read_config(options.load.path));
  return is_one_shot(*config) ? verify_one_shot(options) : Verification::run(options);
}

}  // namespace spillway::models
