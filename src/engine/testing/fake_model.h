// FakeModel: a LanguageModel whose logits are a hash of all tokens so far, read back from the pages, so that a wrong
// page, position or share changes the output. With a draft layer that is right most of the time. For tests and
// benchmarks.
#pragma once

#include <algorithm>
#include <array>
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
  int draft_wrong_of_16 = 3;   // how often the draft layer sees another context
  float spread = 3;            // of the logits
  bool draws = false;          // "the device" draws tokens, greedily, a step ahead of the host
  bool drafts_in_step = true;  // and verifies and proposes drafts too
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
      const int count = static_cast<int>(input.next_tokens.size());
      require(count <= slice.rows, "more draft rows than rows");
      for (int i = 0; i < count; ++i) {
        draft_row(kv, slice, i, input.next_tokens[i], true, input.logits && i + 1 == count);
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
    launched_.push_back({drawn_, logits_, {}});
  }

  int drafted_sequences_max() const override {
    return options_.draws && options_.draft && options_.drafts_in_step ? options_.batch_tokens / 2 : 0;
  }

  void launch_drafted(std::span<const models::DraftedInput> batch, nn::KvStorage& kv, tensor::Stream&) override {
    require(launched_.size() < kStepsInFlight, "too many steps in flight");
    std::vector<kernels::DraftedSequence> rows;
    std::vector<std::array<int32_t, 2>> ids;
    std::vector<models::SequenceInput> slices;
    for (const models::DraftedInput& input : batch) {
      kernels::DraftedSequence& row = rows.emplace_back(input.how);
      carried_steps += row.carried >= 0;
      require(row.carried < static_cast<int32_t>(drafts_.size()), "carried from a place that was not in the step");
      const int covered = row.position + (row.carried >= 0 ? 3 : 2);
      require(static_cast<int>(input.pages.size()) * kv.page_tokens() >= covered && covered <= options_.context,
              "pages or context do not cover the step");
      kernels::begin_drafted(row, drawn_.data(), drafts_.data(), kept_.data());
      ids.push_back({row.token, std::max(0, row.draft)});
    }
    for (size_t i = 0; i < rows.size(); ++i)
      slices.push_back({.tokens = ids[i], .position = rows[i].position, .pages = batch[i].pages, .logits_rows = 2});
    run(slices, kv);
    ++drafted_steps;
    drawn_.assign(2 * rows.size(), 0);
    for (size_t i = 0; i < drawn_.size(); ++i)
      drawn_[i] = draw(kernels::verifying_draw(rows[i / 2], static_cast<int32_t>(i % 2)), static_cast<int64_t>(i));
    kept_.assign(rows.size(), 0);
    drafts_.assign(rows.size(), -1);
    logits_.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      kept_[i] = kernels::keeps_draft(rows[i], drawn_[2 * i]);
      for (int row = 0; row < 2; ++row)  // the second one whether or not it holds
        draft_row(kv, last_[i], row, drawn_[2 * i + row], row <= kept_[i], row == kept_[i]);
      const kernels::RowDraw how = kernels::proposing_draw(rows[i], kept_[i]);
      if (how.vocab > 0) drafts_[i] = draw(how, static_cast<int64_t>(i));
    }
    launched_.push_back({drawn_, {}, drafts_});
  }

  models::LandedStep land(tensor::Stream&) override {
    landed_ = std::move(launched_.at(0));
    launched_.erase(launched_.begin());
    const auto rows = static_cast<int64_t>(landed_.tokens.size());
    return {landed_.tokens, {landed_.logits.data(), tensor::DType::kF32, {rows, options_.vocab}}, landed_.drafts};
  }

  int64_t rows() const { return rows_; }  // forwarded in all
  std::atomic<int64_t> draft_holes{0};    // rows whose predecessor in the draft layer is not of the sequence's token
  std::atomic<int64_t> host_steps{0};     // calls that gave their logits to the host
  std::atomic<int64_t> drafted_steps{0};  // and steps that verified and proposed drafts without it,
  std::atomic<int64_t> carried_steps{0};  // their sequences that were launched before the host knew the tokens

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
  // A row of the draft layer; holds: its token is the sequence's.
  void draft_row(nn::KvStorage& kv, const Slice& slice, int row, int32_t next, bool holds, bool logits) {
    const int position = slice.position + row;
    const auto [before, token] = read(kv, 0, slice.pages, position);
    if (holds && position > 0 && read(kv, 1, slice.pages, position - 1).second != token) ++draft_holes;
    const uint64_t chain = extend(before, next);
    write(kv, 1, slice.pages, position, chain, next);
    const bool wrong = static_cast<int>(chain >> 60) < options_.draft_wrong_of_16;
    if (logits) append_row(wrong ? kv::mix(chain) : chain);
  }
  int32_t draw(const kernels::RowDraw& how, int64_t row) const {
    require(how.temperature == 0 && how.vocab == options_.vocab, "the fake device draws greedily, and every row");
    const float* logits = logits_.data() + row * options_.vocab;
    return static_cast<int32_t>(std::max_element(logits, logits + options_.vocab) - logits);
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
    std::vector<int32_t> drafts;
  };
  std::vector<Launched> launched_;
  Launched landed_;
  std::vector<int32_t> drawn_, drafts_, kept_;
  int64_t rows_ = 0;
};

}  // namespace spillway::engine::testing
