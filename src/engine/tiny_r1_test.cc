// The engine over the embedded model: what it answers is the same alone, together, preempted, with and without the
// prefix cache and drafts, and it is right.
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
using testing::load_evaluation;
using testing::make_request;
using Outputs = std::vector<std::vector<int32_t>>;

const std::string kFolder = SPILLWAY_SOURCE_DIR "/models/tiny-r1";

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kStride = 125;  // every so many questions: fewer where each takes longer
#else
constexpr int kStride = 50;
#endif

struct Answers {
  Outputs outputs;
  Usage usage;  // summed
};

EngineOptions defaults() {
  EngineOptions options;
  options.kv_cache_bytes = 64 << 20;
  options.speculate_adaptively = false;
  return options;
}

Answers answer(const Evaluation& evaluation, EngineOptions options, bool together, float temperature = 0,
               int cache_tokens = 0) {
  models::LoadOptions load;
  load.path = kFolder;
  load.batch_tokens_max = 256;
  load.device = options.device;
  auto model = models::load_model(load);
  SW_CHECK(model.ok(), model.error().message);
  // In tokens, as latents are 16 or 32 bits wide by what the CPU computes in.
  if (cache_tokens > 0) options.kv_cache_bytes = (*model)->info().kv.bytes_per_token() * cache_tokens;
  auto engine = std::move(Engine::start(std::move(model).value(), options)).value();
  Answers run;
  std::vector<std::shared_ptr<Collector>> sinks;
  for (size_t i = 0; i < evaluation.questions.size(); ++i) {
    auto request = make_request(i, evaluation.questions[i].prompt, 300, temperature);
    request->sampling.seed = i;
    request->stop_tokens = {evaluation.end_of_sequence};
    sinks.push_back(std::make_shared<Collector>());
    const auto refusal = engine->submit(std::move(request), sinks.back());
    EXPECT_FALSE(refusal) << refusal->message;
    if (!together) sinks.back()->wait();
  }
  for (auto& sink : sinks) {
    sink->wait();
    run.outputs.push_back(sink->tokens());
    run.usage.cached_tokens += sink->usage().cached_tokens;
    run.usage.draft_tokens += sink->usage().draft_tokens;
    run.usage.accepted_tokens += sink->usage().accepted_tokens;
    run.usage.preemptions += sink->usage().preemptions;
  }
  return run;
}

class TinyR1 : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    evaluation_ = new Evaluation(load_evaluation(kFolder, kStride));
    EngineOptions plain = defaults();
    plain.speculate = plain.prefix_cache = false;
    alone_ = new Answers(answer(*evaluation_, plain, false));
  }
  static Evaluation* evaluation_;
  static Answers* alone_;  // one after another, neither drafts nor cache
};
Evaluation* TinyR1::evaluation_ = nullptr;
Answers* TinyR1::alone_ = nullptr;

TEST_F(TinyR1, AnswersAreRight) {
  int right = 0;
  for (size_t i = 0; i < alone_->outputs.size(); ++i)
    right += evaluation_->right(evaluation_->questions[i], alone_->outputs[i]);
  EXPECT_EQ(right, static_cast<int>(alone_->outputs.size()));
}

TEST_F(TinyR1, TogetherIsAsAlone) {
  EngineOptions options = defaults();
  options.speculate = false;
  const Answers run = answer(*evaluation_, options, true);
  EXPECT_EQ(run.outputs, alone_->outputs);
}

TEST_F(TinyR1, DraftsChangeNothingAndAreMostlyRight) {
  const Answers run = answer(*evaluation_, defaults(), true);
  EXPECT_EQ(run.outputs, alone_->outputs);
  EXPECT_GE(run.usage.accepted_tokens, 0.95 * run.usage.draft_tokens);
  const Answers one_by_one = answer(*evaluation_, defaults(), false);
  EXPECT_EQ(one_by_one.outputs, alone_->outputs);
}

TEST_F(TinyR1, CachedPrefixesChangeNothing) {
  Evaluation twice = load_evaluation(kFolder, kStride);
  const size_t count = twice.questions.size();
  for (size_t i = 0; i < count; ++i) twice.questions.push_back(twice.questions[i]);
  const Answers run = answer(twice, defaults(), false);
  for (size_t i = 0; i < 2 * count; ++i) EXPECT_EQ(run.outputs[i], alone_->outputs[i % count]) << i;
  EXPECT_GT(run.usage.cached_tokens, 0);
}

TEST_F(TinyR1, PreemptionChangesNothing) {
  EngineOptions options = defaults();
  options.prefix_cache = false;
  const Answers run = answer(*evaluation_, options, true, 0, 208);
  EXPECT_GT(run.usage.preemptions, 0) << "the test must force some";
  EXPECT_EQ(run.outputs, alone_->outputs);
}

TEST_F(TinyR1, SamplesOfASeedAreTheSameTogetherAndWithDrafts) {
  EngineOptions plain = defaults();
  plain.speculate = false;
  const Answers alone = answer(*evaluation_, plain, false, 0.8f);
  EXPECT_EQ(answer(*evaluation_, defaults(), true, 0.8f).outputs, alone.outputs);
}

// On the first GPU, where a step with drafts is launched before the host knows what became of the last one's.
TEST(TinyR1OnDevice, DraftsChangeNothing) {
  const Status available = tensor::cuda::check_device(0);
  if (!available.ok()) GTEST_SKIP() << available.error().message;
  const Evaluation evaluation = load_evaluation(kFolder, kStride);
  EngineOptions options = defaults();
  options.device = {tensor::DeviceKind::kCuda, 0};
  options.page_tokens = 64;
  options.deterministic = true;
  for (const float temperature : {0.0f, 0.8f}) {
    options.speculate = options.speculate_adaptively = false;
    const Answers alone = answer(evaluation, options, false, temperature);
    options.speculate = true;
    for (const bool adaptively : {false, true}) {
      options.speculate_adaptively = adaptively;
      for (const bool together : {false, true}) {
        const Answers run = answer(evaluation, options, together, temperature);
        EXPECT_EQ(run.outputs, alone.outputs) << temperature << adaptively << together;
        EXPECT_GT(run.usage.accepted_tokens, 0);
      }
    }
  }
}

}  // namespace
}  // namespace spillway::engine
