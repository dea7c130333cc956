// A GPU's memory: the cache takes what is left when all else is there, serving allocates nothing, and where the driver
// refuses memory all the same, the requests of that step fail and the others' answers are what they are without it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/cost_model.h"
#include "engine/engine.h"
#include "engine/testing/collector.h"
#include "engine/testing/host_drafts.h"
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
class Greedy final : public testing::HostDrafts {
 public:
  Greedy(std::unique_ptr<models::LanguageModel> model, int32_t mark) : HostDrafts(std::move(model)), mark_(mark) {}

  tensor::TensorView forward(std::span<const models::SequenceInput> batch, nn::KvStorage& kv,
                             tensor::Stream& stream) override {
    ask(batch);
    return HostDrafts::forward(batch, kv, stream);
  }
  void launch(std::span<const models::SequenceInput> batch, std::span<const models::TokenDraw> draws,
              std::span<const int32_t> carried, nn::KvStorage& kv, tensor::Stream& stream) override {
    ask(batch);
    HostDrafts::launch(batch, draws, carried, kv, stream);
  }

 private:
  void ask(std::span<const models::SequenceInput> batch) const {
    for (const models::SequenceInput& slice : batch) {
      if (slice.position > 0 || slice.tokens.front() != mark_) continue;
      const tensor::Tensor refused(tensor::DType::kU8, {int64_t{1} << 42}, kDevice);  // 4 TiB
      FAIL() << "the driver gave 4 TiB";
    }
  }

  int32_t mark_;
};

std::unique_ptr<models::LanguageModel> load(models::PrecisionChoice precision) {
  models::LoadOptions options;
  options.path = kFolder;
  options.precision = precision;
  options.batch_tokens_max = 256;
  options.device = kDevice;
  auto model = models::load_model(options);
  EXPECT_TRUE(model.ok()) << model.error().message;
  return model.ok() ? std::move(*model) : nullptr;
}

EngineOptions options_of_device() {
  EngineOptions options;
  options.kv_cache_bytes = 64 << 20;
  options.device = kDevice;
  options.page_tokens = 64;
  return options;
}

class DeviceMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    const Status available = tensor::cuda::check_device(0);
    if (!available.ok()) GTEST_SKIP() << available.error().message;
  }
};

TEST_F(DeviceMemory, TheCacheTakesWhatIsLeft) {
  auto model = load(models::PrecisionChoice::kBf16);
  ASSERT_TRUE(model);
  EngineOptions options = options_of_device();
  options.kv_cache_bytes = int64_t{1} << 40;
  options.device_bytes_kept = tensor::cuda::memory_info(0).free_bytes - (int64_t{3} << 30);
  const int64_t page = model->info().kv.bytes_per_page(options.page_tokens);
  auto engine = Engine::start(std::move(model), options);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  EXPECT_GE(tensor::cuda::memory_info(0).free_bytes, options.device_bytes_kept);
  EXPECT_GT((*engine)->state().pages_total * page, int64_t{3} << 29);
  auto sink = std::make_shared<Collector>();
  const Evaluation evaluation = testing::load_evaluation(kFolder, 40);
  auto request = make_request(1, evaluation.questions[1].prompt, 300);
  request->stop_tokens = {evaluation.end_of_sequence};
  EXPECT_FALSE((*engine)->submit(std::move(request), sink));
  sink->wait();
  EXPECT_TRUE(evaluation.right(evaluation.questions[1], sink->tokens()));
}

TEST_F(DeviceMemory, NoRoomIsAnErrorWithTheFigures) {
  auto model = load(models::PrecisionChoice::kBf16);
  ASSERT_TRUE(model);
  EngineOptions options = options_of_device();
  options.device_bytes_kept = tensor::cuda::memory_info(0).total_bytes;
  const auto engine = Engine::start(std::move(model), options);
  ASSERT_FALSE(engine.ok());
  EXPECT_THAT(engine.error().message, ::testing::HasSubstr("leaves no room for the cache"));
}

TEST_F(DeviceMemory, ASecondStartKnowsWhatStepsCost) {
  const auto folder = std::filesystem::temp_directory_path() / ("device_tuning_" + std::to_string(getpid()));
  EngineOptions options = options_of_device();
  options.tuning_folder = folder.string();
  const Evaluation evaluation = testing::load_evaluation(kFolder, 40);
  for (int start = 0; start < 2; ++start) {
    auto engine = Engine::start(load(models::PrecisionChoice::kBf16), options);
    ASSERT_TRUE(engine.ok()) << engine.error().message;
    if (start == 1) break;  // and ends before it has seen enough
    for (uint64_t i = 0; i < 4; ++i) {
      auto sink = std::make_shared<Collector>();
      ASSERT_FALSE((*engine)->submit(make_request(i, evaluation.questions[i].prompt, 50), sink));
      sink->wait();
    }
  }
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    ++files;
    std::ifstream file(entry.path());
    std::ostringstream text;
    text << file.rdbuf();
    EXPECT_TRUE(parse_step_cost(text.str()).measured) << text.str();
  }
  EXPECT_EQ(files, 1);
  std::filesystem::remove_all(folder);
}

class AfterReady : public DeviceMemory, public ::testing::WithParamInterface<models::PrecisionChoice> {};
INSTANTIATE_TEST_SUITE_P(Precisions, AfterReady,
                         ::testing::Values(models::PrecisionChoice::kBf16, models::PrecisionChoice::kFp32,
                                           models::PrecisionChoice::kFp8),
                         [](const auto& info) { return std::string(std::to_string(info.index)); });

// Many and few sequences, drafts, prompts of all lengths beside them, draws on the host and on the device.
TEST_P(AfterReady, NothingIsAllocated) {
  if (GetParam() == models::PrecisionChoice::kFp8 && tensor::cuda::device_info(0).capability() < 80)
    GTEST_SKIP() << "quantised weights want 8.0";
  const Evaluation evaluation = testing::load_evaluation(kFolder, 8);
  auto model = load(GetParam());
  ASSERT_TRUE(model);
  EngineOptions options = options_of_device();
  options.sequences_max = 48;
  options.device_bytes_kept = 0;
  auto engine = Engine::start(std::move(model), options);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  const int64_t before = tensor::cuda::allocations();
  EXPECT_GT(before, 0);
  std::vector<std::shared_ptr<Collector>> sinks;
  for (size_t i = 0; i < 200; ++i) {
    std::vector<int32_t> prompt = evaluation.questions[i % evaluation.questions.size()].prompt;
    for (size_t copies = i % 7; copies > 0 && prompt.size() < 300; --copies)
      prompt.insert(prompt.end(), prompt.begin(), prompt.begin() + int64_t(prompt.size() / 2));
    auto request = make_request(i, prompt, 1 + int(i) % 60);
    request->speculate = i % 3 != 0;
    if (i % 4 == 1) request->sampling.temperature = 0.8f, request->sampling.top_p = 0.9f;
    if (i % 5 == 2) request->top_logprobs = 3;
    if (i % 11 == 3) request->sampling.repetition_penalty = 1.1f;
    sinks.push_back(std::make_shared<Collector>());
    ASSERT_FALSE((*engine)->submit(std::move(request), sinks.back()));
    if (i % 50 == 49) {
      for (const auto& sink : sinks) EXPECT_NE(sink->wait(), FinishReason::kFailed);
    }
  }
  EXPECT_EQ(tensor::cuda::allocations(), before);
}

TEST_F(DeviceMemory, OnlyTheRequestsOfTheRefusedStepFail) {
  const Evaluation evaluation = testing::load_evaluation(kFolder, 40);
  ASSERT_GE(evaluation.questions.size(), 8u);
  for (const auto& question : evaluation.questions) ASSERT_NE(question.prompt.front(), evaluation.end_of_sequence);
  EngineOptions options = options_of_device();
  options.prefix_cache = false;  // a marked prompt is computed from its beginning
  auto model = load(models::PrecisionChoice::kBf16);
  ASSERT_TRUE(model);
  const int32_t mark = evaluation.end_of_sequence;  // which begins no question
  std::vector<int32_t> marked = evaluation.questions[0].prompt;
  marked.insert(marked.begin(), mark);
  auto engine = Engine::start(std::make_unique<Greedy>(std::move(model), mark), options);
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
