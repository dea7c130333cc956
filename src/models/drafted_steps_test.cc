// Whole decode steps with drafts on the first GPU, against plain ones.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/loader.h"
#include "tensor/cuda/cuda.h"

namespace spillway::models {
namespace {

// Whole decode steps with drafts on the device, the second half of them launched ahead: in every precision, together
// and one by one, the tokens are those of plain steps.
class CudaDraftedSteps : public testing::TestWithParam<PrecisionChoice> {
 protected:
  static constexpr int kPageTokens = 64, kPages = 4, kTokens = 60;
  void SetUp() override {
    const Status available = tensor::cuda::check_device(0);
    if (!available.ok()) GTEST_SKIP() << available.error().message;
    const bool quantised = GetParam() == PrecisionChoice::kFp8 || GetParam() == PrecisionChoice::kInt8;
    if (quantised && tensor::cuda::device_info(0).capability() < 80) GTEST_SKIP() << "quantised weights want 8.0";
    LoadOptions options;
    options.path = SPILLWAY_SOURCE_DIR "/models/tiny-r1";
    options.precision = GetParam();
    options.device = {tensor::DeviceKind::kCuda, 0};
    auto model = load_model(options);
    ASSERT_TRUE(model.ok()) << model.error().message;
    model_ = std::move(*model);
    auto stream = tensor::Stream::open(options.device);
    ASSERT_TRUE(stream.ok());
    stream_ = std::move(*stream);
    stream_.set_batch_invariant(true);  // so that rows of two kinds of steps have the same bits
  }

  struct Slot {
    std::vector<int32_t> tokens, pages;
    int32_t draft = -1;
    int64_t proposed = 0, kept = 0;
  };
  std::vector<Slot> slots(int count) const {
    std::vector<Slot> list(static_cast<size_t>(count));
    for (int s = 0; s < count; ++s) {
      list[size_t(s)].tokens = {0, 3, 28 + s, 28, 301, 227, 26, 29, 282, 227, 37, 4, 5, 205};
      list[size_t(s)].tokens.resize(size_t(14 - s % 5));
      for (int p = 0; p < kPages; ++p) list[size_t(s)].pages.push_back(s * kPages + p);
    }
    return list;
  }
  kernels::RowDraw draw_at(int slot, int64_t position) const {
    return {.temperature = slot % 2 == 1 ? 0.7f : 0.0f,
            .top_p = slot % 3 == 1 ? 0.9f : 1.0f,
            .key_low = uint32_t(position * 77 + slot),
            .key_high = uint32_t(slot),
            .vocab = model_->info().vocab_size};
  }
  nn::KvStorage storage(size_t slots) const {
    return std::move(nn::KvStorage::create(model_->info().kv, kPageTokens, int(slots) * kPages,
                                           {tensor::DeviceKind::kCuda, 0}))
        .value();
  }

  // The prompts, each with its first token drawn; and their first drafts.
  void prefill(std::vector<Slot>& all, nn::KvStorage& kv) {
    for (size_t s = 0; s < all.size(); ++s) {
      Slot& slot = all[s];
      const SequenceInput input{.tokens = slot.tokens, .position = 0, .pages = slot.pages, .logits_rows = 1};
      const auto length = int64_t(slot.tokens.size());
      const TokenDraw draw{.how = draw_at(int(s), length)};
      const int32_t none = -1;
      model_->launch(std::span(&input, 1), std::span(&draw, 1), std::span(&none, 1), kv, stream_);
      slot.tokens.push_back(model_->land(stream_).tokens[0]);
      const DraftInput draft{.sequence = 0, .next_tokens = std::span(slot.tokens).subspan(1), .logits = true};
      const kernels::RowDraw how = draw_at(int(s), length + 1);
      model_->draft_tokens(std::span(&draft, 1), std::span(&how, 1), std::span(&slot.draft, 1), kv, stream_);
    }
  }

  std::vector<std::vector<int32_t>> plain(int count) {
    std::vector<Slot> all = slots(count);
    nn::KvStorage kv = storage(all.size());
    prefill(all, kv);
    for (int step = 0; step < kTokens; ++step) {
      std::vector<SequenceInput> batch;
      std::vector<TokenDraw> draws;
      for (size_t s = 0; s < all.size(); ++s) {
        const auto length = int64_t(all[s].tokens.size());
        batch.push_back({.tokens = std::span(all[s].tokens).last(1),
                         .position = int32_t(length) - 1,
                         .pages = all[s].pages,
                         .logits_rows = 1});
        draws.push_back({.how = draw_at(int(s), length)});
      }
      model_->launch(batch, draws, std::vector<int32_t>(all.size(), -1), kv, stream_);
      const LandedStep landed = model_->land(stream_);
      for (size_t s = 0; s < all.size(); ++s) all[s].tokens.push_back(landed.tokens[s]);
    }
    std::vector<std::vector<int32_t>> tokens;
    for (Slot& slot : all) tokens.push_back(std::move(slot.tokens));
    return tokens;
  }

  DraftedInput input_of(const Slot& slot, int index, int32_t carried) const {
    // Carried: one token more is there for sure, and it and the draft are the device's to know.
    const auto length = int32_t(slot.tokens.size()) + (carried >= 0 ? 1 : 0);
    DraftedInput input;
    input.pages = slot.pages;
    input.how.carried = carried;
    if (carried < 0) input.how.token = slot.tokens.back(), input.how.draft = slot.draft;
    input.how.position = length - 1;
    input.how.draft_end = kPageTokens * kPages;
    for (int i = 0; i < 4; ++i) input.how.draws[i] = draw_at(index, length + i);
    return input;
  }

  void take(std::vector<Slot>& all, const std::vector<size_t>& places, const LandedStep& landed,
            std::vector<int32_t>& verified) {
    for (size_t i = 0; i < places.size(); ++i) {
      Slot& slot = all[places[i]];
      const bool kept = verified[places[i]] >= 0 && landed.tokens[2 * i] == verified[places[i]];
      slot.proposed += verified[places[i]] >= 0;
      slot.kept += kept;
      slot.tokens.push_back(landed.tokens[2 * i]);
      if (kept) slot.tokens.push_back(landed.tokens[2 * i + 1]);
      verified[places[i]] = slot.draft = landed.drafts[i];
    }
  }

  // In every step from the second on one sequence fewer, down to one; the first has no draft to begin with.
  std::vector<std::vector<int32_t>> drafted(int count, bool ahead, int64_t& kept) {
    std::vector<Slot> all = slots(count);
    nn::KvStorage kv = storage(all.size());
    prefill(all, kv);
    all[0].draft = -1;
    std::vector<int32_t> verified;
    std::vector<size_t> places;
    for (size_t s = 0; s < all.size(); ++s) verified.push_back(all[s].draft), places.push_back(s);
    const auto launch = [&](const std::vector<size_t>& these, const std::vector<int32_t>& carried) {
      std::vector<DraftedInput> batch;
      for (size_t i = 0; i < these.size(); ++i)
        batch.push_back(input_of(all[these[i]], int(these[i]), carried.empty() ? -1 : carried[i]));
      model_->launch_drafted(batch, kv, stream_);
    };
    launch(places, {});
    for (int step = 1; step < kTokens / 2; ++step) {
      std::vector<size_t> next(places);
      std::vector<int32_t> from;
      if (next.size() > 1 && step % 3 == 0) next.erase(next.begin() + step % int(next.size()));
      for (const size_t s : next) from.push_back(int32_t(std::find(places.begin(), places.end(), s) - places.begin()));
      if (ahead) launch(next, from);
      take(all, places, model_->land(stream_), verified);
      places = next;
      if (!ahead) launch(places, {});
    }
    take(all, places, model_->land(stream_), verified);
    std::vector<std::vector<int32_t>> tokens;
    for (Slot& slot : all) {
      kept += slot.kept;
      tokens.push_back(std::move(slot.tokens));
    }
    return tokens;
  }

  std::unique_ptr<LanguageModel> model_;
  tensor::Stream stream_;
};

INSTANTIATE_TEST_SUITE_P(Precisions, CudaDraftedSteps,
                         testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16, PrecisionChoice::kFp8,
                                         PrecisionChoice::kInt8),
                         [](const auto& info) { return std::string(name_of(resolve_precision(info.param, {}))); });

TEST_P(CudaDraftedSteps, TokensAreThoseOfPlainSteps) {
  for (const int count : {1, 5, 20}) {
    const auto expected = plain(count);
    for (const bool ahead : {false, true}) {
      int64_t kept = 0;
      const auto found = drafted(count, ahead, kept);
      size_t compared = 0;
      for (size_t s = 0; s < found.size(); ++s) {
        const size_t length = std::min(found[s].size(), expected[s].size());
        compared += length;
        EXPECT_TRUE(std::equal(found[s].begin(), found[s].begin() + int64_t(length), expected[s].begin()))
            << count << " sequences, " << s << (ahead ? ", ahead" : "");
      }
      EXPECT_GT(kept, 0);
      EXPECT_GT(compared, size_t(count) * 16);
    }
  }
}

}  // namespace
}  // namespace spillway::models
