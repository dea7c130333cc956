// A GPU's own refusal of memory in the middle of serving: the requests of that step fail, the others' answers are what
// they are without it.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "engine/testing/collector.h"
#include "engine/testing/test_evaluation.h"
#include "models/loader.h"
#include "tensor/cuda/cuda.h"

namespace spillway::engine {
namespace {

using testing::Collector;
using testing::Evaluation;
using testing::make_request;

const std::string kFolder = SPILLWAY_SOURCE_DIR "/models/tiny-r1";
constexpr tensor::Device kDevice{tensor::DeviceKind::kCuda, 0};

// A model that asks the driver for more than the card has whenever a prompt that starts with the mark begins, in
// whatever pieces, before its step and, where that is launched, behind work that is under way.
class Greedy final : public models::LanguageModel {
 public:
  Greedy(std::unique_ptr<models::LanguageModel> model, int32_t mark) : model_(std::move(model)), mark_(mark) {}

  const models::ModelInfo& info() const override { return model_->info(); }
  int batch_tokens_max() const override { return model_->batch_tokens_max(); }
  tensor::TensorView forward(std::span<const models::SequenceInput> batch, nn::KvStorage& kv,
                             tensor::Stream& stream) override {
    ask(batch);
    return model_->forward(batch, kv, stream);
  }
  tensor::TensorView draft(std::span<const models::DraftInput> inputs, nn::KvStorage& kv,
                           tensor::Stream& stream) override {
    return model_->draft(inputs, kv, stream);
  }
  void draft_tokens(std::span<const models::DraftInput> inputs, std::span<const kernels::RowDraw> draws,
                    std::span<int32_t> tokens, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->draft_tokens(inputs, draws, tokens, kv, stream);
  }
  bool draws_tokens() const override { return model_->draws_tokens(); }
  void launch(std::span<const models::SequenceInput> batch, std::span<const models::TokenDraw> draws,
              std::span<const int32_t> carried, nn::KvStorage& kv, tensor::Stream& stream) override {
    ask(batch);
    model_->launch(batch, draws, carried, kv, stream);
  }
  models::LandedStep land(tensor::Stream& stream) override { return model_->land(stream); }
  void warm_up(int sequences_max, nn::KvStorage& kv, tensor::Stream& stream) override {
    model_->warm_up(sequences_max, kv, stream);
  }

 private:
  void ask(std::span<const models::SequenceInput> batch) const {
    for (const models::SequenceInput& slice : batch) {
      if (slice.position > 0 || slice.tokens.front() != mark_) continue;
      const tensor::Tensor refused(tensor::DType::kU8, {int64_t{1} << 42}, kDevice);  // 4 TiB
      FAIL() << "the driver gave 4 TiB";
    }
  }

  std::unique_ptr<models::LanguageModel> model_;
  int32_t mark_;
};

TEST(DeviceMemory, OnlyTheRequestsOfTheRefusedStepFail) {
  const Status available = tensor::cuda::check_device(0);
  if (!available.ok()) GTEST_SKIP() << available.error().message;
  const Evaluation evaluation = testing::load_evaluation(kFolder, 40);
  ASSERT_GE(evaluation.questions.size(), 8u);
  for (const auto& question : evaluation.questions) ASSERT_NE(question.prompt.front(), evaluation.end_of_sequence);
  models::LoadOptions load;
  load.path = kFolder;
  load.batch_tokens_max = 256;
  load.device = kDevice;
  EngineOptions options;
  options.kv_cache_bytes = 64 << 20;
  options.device = kDevice;
  options.page_tokens = 64;
  options.prefix_cache = false;  // a marked prompt is computed from its beginning
  auto model = models::load_model(load);
  ASSERT_TRUE(model.ok()) << model.error().message;
  const int32_t mark = evaluation.end_of_sequence;  // which begins no question
  std::vector<int32_t> marked = evaluation.questions[0].prompt;
  marked.insert(marked.begin(), mark);
  auto engine = Engine::start(std::make_unique<Greedy>(std::move(*model), mark), options);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  std::vector<std::shared_ptr<Collector>> good, bad;
  const auto submit = [&](uint64_t id, const std::vector<int32_t>& prompt) {
    auto request = make_request(id, prompt, 300);
    request->stop_tokens = {evaluation.end_of_sequence};
    auto sink = std::make_shared<Collector>();
    EXPECT_FALSE((*engine)->submit(std::move(request), sink));
    return sink;
  };
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 1; i < evaluation.questions.size(); ++i) {
      good.push_back(submit(good.size(), evaluation.questions[i].prompt));
      if (i % 4 == 0) bad.push_back(submit(100000 + bad.size(), marked));
    }
  }
  for (const auto& sink : bad) EXPECT_EQ(sink->wait(), FinishReason::kFailed);
  for (size_t i = 0; i < good.size(); ++i) {
    good[i]->wait();
    const auto& question = evaluation.questions[1 + i % (evaluation.questions.size() - 1)];
    EXPECT_TRUE(evaluation.right(question, good[i]->tokens())) << i;
  }
}

}  // namespace
}  // namespace spillway::engine
