#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apps/bench/measure.h"
#include "apps/builtin_model.h"
#include "apps/doctor/finding.h"
#include "apps/eval/score.h"
#include "apps/local_model.h"
#include "apps/model_sources.h"
#include "apps/progress.h"
#include "apps/shapes.h"
#include "apps/system.h"
#include "apps/table.h"
#include "kernels/isa.h"
#include "models/loader.h"

namespace spillway::apps {
namespace {

using ::testing::HasSubstr;

config::Config config_of(std::string_view yaml) {
  config::Config config;
  const auto status = config.load_yaml(yaml, "f.yaml");
  EXPECT_TRUE(status.ok()) << status.error().message;
  return config;
}

TEST(Table, AlignsTheFirstColumnLeftAndTheOthersRight) {
  Table table({"task", "right"});
  table.add({"加法", "7"});
  table.add({"reverse", "100"});
  EXPECT_EQ(table.render(), "task     right\n加法           7\nreverse    100\n");
}

TEST(Eval, AnswerIsWhatFollowsTheReasoningStripped) {
  EXPECT_EQ(final_answer("<think>1 + 1</think>\n\n 2 \n"), "2");
  EXPECT_EQ(final_answer("a</think>b</think>c"), "c");
  EXPECT_EQ(final_answer(" 2 "), "2");
  EXPECT_EQ(final_answer("thinking</think>\n"), "");
}

TEST(Eval, ScoresByTask) {
  Score score;
  score.add("add", true, 10);
  score.add("add", false, 20);
  score.add("sort", true, 30);
  EXPECT_EQ(render(score),
            "task   right  asked  accuracy  tokens each\n"
            "add        1      2    50.00%         15.0\n"
            "sort       1      1   100.00%         30.0\n"
            "total      2      3    66.67%         20.0\n");
}

TEST(Eval, QuestionFilesAreChecked) {
  EXPECT_THAT(parse_questions("{}").error().message, HasSubstr("expected an array"));
  EXPECT_THAT(parse_questions("[]").error().message, HasSubstr("expected at least one"));
  EXPECT_THAT(parse_questions(R"([{"prompt":"a","answer":"b"},{"prompt":"a","answer":3}])").error().message,
              HasSubstr("questions[1]"));
  EXPECT_THAT(parse_questions("[").error().message, HasSubstr("expected JSON"));
  const auto questions = parse_questions(R"([{"prompt":"a","answer":"b"}])");
  ASSERT_TRUE(questions.ok());
  EXPECT_EQ((*questions)[0].task, "all");
}

TEST(Builtin, EmbeddedEvaluationHasAThousandQuestions) {
  const auto questions = parse_questions(builtin_evaluation());
  ASSERT_TRUE(questions.ok()) << questions.error().message;
  EXPECT_EQ(questions->size(), 1000u);
}

TEST(Builtin, FolderHoldsTheFilesAndGoesWithItsOwner) {
  std::string path;
  {
    const auto folder = builtin_folder();
    ASSERT_TRUE(folder.ok()) << folder.error().message;
    path = folder->path();
    for (const char* name :
         {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"}) {
      const auto bytes = [&](const std::string& file) {
        std::ifstream in(file, std::ios::binary);
        return std::string((std::istreambuf_iterator<char>(in)), {});
      };
      EXPECT_TRUE(bytes(path + "/" + name) == bytes(std::string(SPILLWAY_SOURCE_DIR "/models/tiny-r1/") + name))
          << name;
    }
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Shapes, EachIsAConfigOfAKnownFamily) {
  for (const auto& shape : shapes()) {
    const auto value = boost::json::parse(shape.config);
    EXPECT_TRUE(models::find_family(value.as_object()).ok()) << shape.name;
  }
  EXPECT_EQ(find_shape("no-such"), nullptr);
}

TEST(Measure, MedianAndPercentile) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
  EXPECT_EQ(percentile({5, 1, 4, 2, 3}, 0.5), 3);
  EXPECT_EQ(percentile({5, 1, 4, 2, 3}, 0.99), 5);
  EXPECT_EQ(percentile({7}, 0.01), 7);
}

TEST(Progress, BarShowsShareAndAmounts) {
  EXPECT_EQ(render_bar("loading", 1 << 19, 1 << 20, Progress::Unit::kBytes),
            "loading  [===============>              ]  50%  512.0 KiB of 1.0 MiB");
  EXPECT_EQ(render_bar("asking", 10, 10, Progress::Unit::kCount),
            "asking  [==============================] 100%  10 of 10");
  EXPECT_EQ(render_bar("loading", 5, 0, Progress::Unit::kCount), "loading  5");
}

TEST(ModelOptions, WrongPathsAreOneClearError) {
  const auto refusal = [](std::string_view yaml) {
    const auto status = check_model_options(config_of(yaml));
    return status.ok() ? "" : status.error().message;
  };
  EXPECT_EQ(refusal("model: {path: \"s3://models/bert-large-uncased\"}"), "");
  EXPECT_THAT(refusal("model: {path: \"s3://m\"}"),
              HasSubstr("model.path: expected s3://BUCKET/PREFIX, found \"s3://m\""));
  EXPECT_THAT(refusal("model: {path: \"gs://models/x\"}"),
              HasSubstr("expected s3://BUCKET/PREFIX or https://HOST/FOLDER"));
  EXPECT_THAT(refusal("{model: {path: \"s3://models/x\"}, store: {endpoint: localhost}}"),
              HasSubstr("store.endpoint: expected a URL"));
  EXPECT_THAT(refusal("hardware: {gpu_ids: [0, 1023], strict: true}"),
              HasSubstr("hardware.gpu_ids asks for GPUs 0, 1023"));
  const kernels::IsaLevel before = kernels::active_isa();
  kernels::force_isa(kernels::IsaLevel::kScalar);
  EXPECT_THAT(refusal("{model: {precision: bf16}, hardware: {device: cpu, strict: true}}"),
              HasSubstr("model.precision asks for bf16, for which this processor has no instructions"));
  EXPECT_EQ(refusal("{model: {precision: bf16}, hardware: {device: cpu}}"), "");
  kernels::force_isa(before);
  EXPECT_THAT(refusal("model: {path: /no/such/folder}"), HasSubstr("which does not exist"));
  EXPECT_THAT(refusal("model: {path: /proc/self}"), HasSubstr("no config.json"));
  EXPECT_THAT(refusal("model: {path: qwen9, random_weights: true}"), HasSubstr("no named shape (qwen2.5-0.5b"));
  EXPECT_EQ(refusal("model: {path: llama-8b, random_weights: true}"), "");
  EXPECT_EQ(refusal(""), "");
  EXPECT_THAT(refusal("hardware: {device: cuda}"), HasSubstr("hardware.device"));
}

TEST(ModelOptions, VersionsAreChosenByNumber) {
  const std::vector<std::string> found{"10", "2", "9", "old", "02", "1"};
  EXPECT_EQ(chosen_versions(found, "latest").value(), (std::vector<std::string>{"10"}));
  EXPECT_EQ(chosen_versions(found, "all").value(), (std::vector<std::string>{"1", "2", "9", "10"}));
  EXPECT_EQ(chosen_versions(found, "2,9").value(), (std::vector<std::string>{"2", "9"}));
  EXPECT_THAT(chosen_versions(found, "3").error().message, HasSubstr("there is no version 3"));
  EXPECT_THAT(chosen_versions(found, "newest").error().message, HasSubstr("expected latest, all or numbers"));
  EXPECT_THAT(chosen_versions({"old"}, "all").error().message, HasSubstr("numbered versions"));
}

TEST(ModelOptions, NameComesFromTheFolder) {
  EXPECT_EQ(model_name(config_of("")), "tiny-r1");
  EXPECT_EQ(model_name(config_of("model: {path: /models/Qwen2.5-1.5B/}")), "Qwen2.5-1.5B");
  EXPECT_EQ(model_name(config_of("model: {path: /models/x, name: y}")), "y");
  EXPECT_EQ(model_name(config_of("model: {path: \"s3://models/bert-large-uncased/\"}")), "bert-large-uncased");
}

TEST(Doctor, SaysWhatIsWrongAndHowToMendIt) {
  const auto missing = check_model(config_of("model: {path: /proc/self}"));
  EXPECT_EQ(missing[0].level, Finding::Level::kBad);
  EXPECT_THAT(missing[0].what, HasSubstr("config.json"));
  EXPECT_EQ(check_security(config_of("network: {host: 127.0.0.1}")).size(), 0u);
  const auto open = check_security(config_of("network: {host: 0.0.0.0}"));
  ASSERT_EQ(open.size(), 1u);
  EXPECT_EQ(open[0].level, Finding::Level::kWarning);
  EXPECT_EQ(check_security(config_of("tls: {cert: a.pem}"))[0].level, Finding::Level::kBad);
  EXPECT_EQ(check_limits(config_of("limits: {connections: 1048576}"))[0].level, Finding::Level::kWarning);
  EXPECT_EQ(render({{Finding::Level::kBad, "port", "taken", "stop it"}}, false),
            "BAD   port        taken\n                  mend: stop it\n");
}

TEST(System, BytesAreWrittenWithTheirUnit) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(int64_t(3) << 29), "1.5 GiB");
}

}  // namespace
}  // namespace spillway::apps
