// FakeModel: a LanguageModel whose logits are a hash of all tokens so far, read back from the pages, so that a wrong
// page, position or share changes the output. With a draft layer that is right most of the time. For tests and
// benchmarks.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kv/block_hash.h"
#include "models/language_model.h"
#include "tensor/stream.h"

namespace spillway::engine::testing {

struct FakeOptions {
  int vocab = 64;
  int context = 512;
  int batch_tokens = 512;
  bool draft = false;
  int draft_wrong_of_16 = 3;  // how often the draft layer sees another context
  float spread = 3;           // of the logits
  bool draws = false;         // "the device" draws tokens, greedily, a step ahead of the host
  std::function<void(std::span<const models::SequenceInput>)> on_forward = {};  // may throw
};

class FakeModel final : public models::LanguageModel {
 public:
  explicit FakeModel(FakeOptions options) : options_(std::move(options)) {
    info_.architecture = "Fake";
    info_.vocab_size = options_.vocab;
    info_.context_tokens_max = options_.context;
    info_.draft_tokens_max = options_.draft ? 1 : 0;
    info_.kv.layer_widths.assign(options_.draft ? 2 : 1, 3);  // chain, token
  }

  const models::ModelInfo& info() const override { return info_; }
  int batch_tokens_max() const override { return options_.batch_tokens; }

  // The logits of the token after `tokens`: what a test expects without any engine.
  static std::vector<float> logits_after(std::span<const int32_t> tokens, const FakeOptions& options) {
    uint64_t chain = kStart;
    for (const int32_t token : tokens) chain = extend(chain, token);
    std::vector<float> row(options.vocab);
    fill(chain, options, row.data());
    return row;
  }

  tensor::TensorView forward(std::span<const models::SequenceInput> batch, nn::KvStorage& kv,
                             tensor::Stream&) override {
    ++host_steps;
    return run(batch, kv);
  }

  tensor::TensorView run(std::span<const models::SequenceInput> batch, nn::KvStorage& kv) {
    if (options_.on_forward) options_.on_forward(batch);
    last_.clear();
    logits_.clear();
    int64_t tokens = 0;
    for (const auto& slice : batch) {
      tokens += static_cast<int64_t>(slice.tokens.size());
      require(slice.pages.size() * kv.page_tokens() >= slice.position + slice.tokens.size(),
              "pages do not cover the slice");
      last_.push_back(
          {slice.position, static_cast<int>(slice.tokens.size()), {slice.pages.begin(), slice.pages.end()}});
      uint64_t chain = context(kv, slice);
      for (size_t i = 0; i < slice.tokens.size(); ++i) {
        chain = extend(chain, slice.tokens[i]);
        write(kv, 0, slice.pages, slice.position + static_cast<int>(i), chain, slice.tokens[i]);
        if (i + slice.logits_rows >= slice.tokens.size()) append_row(chain);
      }
    }
    require(tokens <= options_.batch_tokens, "the batch is larger than the workspace");
    rows_ += tokens;
    return view();
  }

  tensor::TensorView draft(std::span<const models::DraftInput> inputs, nn::KvStorage& kv, tensor::Stream&) override {
    ++host_steps;
    return run_drafts(inputs, kv);
  }

  void draft_tokens(std::span<const models::DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream&) override {
    run_drafts(inputs, kv);
    require(draws.size() == tokens.size() && tokens.size() * options_.vocab == logits_.size(), "a draw for each row");
    for (size_t i = 0; i < tokens.size(); ++i) {
      const float* row = logits_.data() + i * options_.vocab;
      tokens[i] = static_cast<int32_t>(std::max_element(row, row + options_.vocab) - row);
    }
  }

  tensor::TensorView run_drafts(std::span<const models::DraftInput> inputs, nn::KvStorage& kv) {
    logits_.clear();
    for (const auto& input : inputs) {
      const Slice& slice = last_.at(input.sequence);
      require(static_cast<int>(input.next_tokens.size()) <= slice.rows, "more draft rows than rows");
      for (size_t i = 0; i < input.next_tokens.size(); ++i) {
        const int position = slice.position + static_cast<int>(i);
        const uint64_t chain = extend(read(kv, 0, slice.pages, position).first, input.next_tokens[i]);
        if (position > 0 && read(kv, 1, slice.pages, position - 1).second < 0) ++draft_holes;
        write(kv, 1, slice.pages, position, chain, input.next_tokens[i]);
        if (!input.logits || i + 1 < input.next_tokens.size()) continue;
        const bool wrong = static_cast<int>(chain >> 60) < options_.draft_wrong_of_16;
        append_row(wrong ? kv::mix(chain) : chain);
      }
    }
    return view();
  }

  bool draws_tokens() const override { return options_.draws; }

  void launch(std::span<const models::SequenceInput> batch, std::span<const models::TokenDraw> draws,
              std::span<const int32_t> carried, nn::KvStorage& kv, tensor::Stream&) override {
    require(launched_.size() < kStepsInFlight, "too many steps in flight");
    std::vector<std::vector<int32_t>> tokens;
    std::vector<models::SequenceInput> slices(batch.begin(), batch.end());
    for (size_t i = 0; i < batch.size(); ++i) {
      tokens.emplace_back(batch[i].tokens.begin(), batch[i].tokens.end());
      if (carried[i] >= 0) tokens.back().back() = drawn_.at(carried[i]);
    }
    for (size_t i = 0; i < slices.size(); ++i) slices[i].tokens = tokens[i];
    const tensor::TensorView logits = run(slices, kv);
    require(logits.shape[0] == static_cast<int64_t>(draws.size()), "a draw for each wanted row");
    drawn_.clear();
    for (size_t i = 0; i < draws.size(); ++i) {
      const float* row = logits.as<float>() + i * options_.vocab;
      require(draws[i].host_logits || draws[i].how.temperature == 0, "the fake device draws greedily");
      drawn_.push_back(static_cast<int32_t>(std::max_element(row, row + options_.vocab) - row));
    }
    launched_.push_back({drawn_, logits_});
  }

  models::LandedStep land(tensor::Stream&) override {
    landed_ = std::move(launched_.at(0));
    launched_.erase(launched_.begin());
    const auto rows = static_cast<int64_t>(landed_.tokens.size());
    return {landed_.tokens, {landed_.logits.data(), tensor::DType::kF32, {rows, options_.vocab}}};
  }

  int64_t rows() const { return rows_; }  // forwarded in all
  std::atomic<int64_t> draft_holes{0};    // rows whose predecessor in the draft layer was never written
  std::atomic<int64_t> host_steps{0};     // calls that gave their logits to the host

 private:
  static constexpr uint64_t kStart = 0x1234567;
  struct Slice {
    int position;
    int rows;
    std::vector<int32_t> pages;
  };

  static void require(bool condition, const char* what) {
    if (!condition) throw std::logic_error(what);
  }
  static uint64_t extend(uint64_t chain, int32_t token) {
    return kv::mix(chain * 31 + static_cast<uint32_t>(token) + 0x9e3779b97f4a7c15ull);
  }
  static void fill(uint64_t chain, const FakeOptions& options, float* row) {
    for (int i = 0; i < options.vocab; ++i) {
      row[i] = static_cast<float>(kv::mix(chain + i) >> 40) * 0x1p-24f * options.spread;
    }
  }
  void append_row(uint64_t chain) {
    logits_.resize(logits_.size() + options_.vocab);
    fill(chain, options_, logits_.data() + logits_.size() - options_.vocab);
  }
  tensor::TensorView view() {
    const auto rows = static_cast<int64_t>(logits_.size()) / options_.vocab;
    return {logits_.data(), tensor::DType::kF32, {rows, options_.vocab}};
  }

  static float* slot(nn::KvStorage& kv, int layer, std::span<const int32_t> pages, int position) {
    std::byte* page = kv.layer_base(layer) + pages[position / kv.page_tokens()] * kv.page_stride_bytes(layer);
    return reinterpret_cast<float*>(page) + 3 * (position % kv.page_tokens());
  }
  static void write(nn::KvStorage& kv, int layer, std::span<const int32_t> pages, int position, uint64_t chain,
                    int32_t token) {
    float* at = slot(kv, layer, pages, position);
    at[0] = std::bit_cast<float>(static_cast<uint32_t>(chain));
    at[1] = std::bit_cast<float>(static_cast<uint32_t>(chain >> 32));
    at[2] = static_cast<float>(token + layer);  // in the draft layer 0 means never written
  }
  static std::pair<uint64_t, int32_t> read(nn::KvStorage& kv, int layer, std::span<const int32_t> pages, int position) {
    const float* at = slot(kv, layer, pages, position);
    const uint64_t chain = std::bit_cast<uint32_t>(at[0]) | static_cast<uint64_t>(std::bit_cast<uint32_t>(at[1])) << 32;
    return {chain, static_cast<int32_t>(at[2]) - layer};
  }
  // Of all tokens before the slice, recomputed from every page.
  uint64_t context(nn::KvStorage& kv, const models::SequenceInput& slice) const {
    uint64_t chain = kStart;
    for (int position = 0; position < slice.position; ++position) {
      const auto [stored, token] = read(kv, 0, slice.pages, position);
      chain = extend(chain, token);
      require(chain == stored, "a page does not hold the tokens of its sequence");
    }
    return chain;
  }

  const FakeOptions options_;
  models::ModelInfo info_;
  std::vector<Slice> last_;
  std::vector<float> logits_;
  struct Launched {
    std::vector<int32_t> tokens;
    std::vector<float> logits;
  };
  std::vector<Launched> launched_;
  Launched landed_;
  std::vector<int32_t> drawn_;
  int64_t rows_ = 0;
};

}  // namespace spillway::engine::testing
