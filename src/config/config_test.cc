#include "config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "config/render.h"

namespace spillway::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string refusal(std::string_view yaml) {
  Config config;
  const auto status = config.load_yaml(yaml, "f.yaml");
  return status.ok() ? "" : status.error().message;
}

TEST(Config, LoadsTheFileThatCirculates) {
  Config config;
  const auto status = config.load_file(SPILLWAY_SOURCE_DIR "/examples/bert-large.yaml");
  ASSERT_TRUE(status.ok()) << status.error().message;
  EXPECT_EQ(config.text("model.path"), "s3://models/bert-large-uncased");
  EXPECT_EQ(config.text("model.precision"), "fp32");
  EXPECT_EQ(config.integer("model.batch_size"), 64);
  EXPECT_EQ(config.integers("hardware.gpu_ids"), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_DOUBLE_EQ(config.number("hardware.memory_fraction"), 0.9);
  EXPECT_EQ(config.integer("network.grpc_port"), 50051);
  EXPECT_EQ(config.integer("network.max_workers"), 8);
}

TEST(Config, LaterSourcesWinAndEachValueKnowsItsOrigin) {
  Config config;
  ASSERT_TRUE(config.load_yaml("network:\n  port: 1\n  host: a\n  grpc_port: 5\n", "f.yaml").ok());
  ASSERT_TRUE(config.load_environment({"SPILLWAY_NETWORK_PORT=2", "SPILLWAY_NETWORK_HOST=b", "HOME=/root"}).ok());
  ASSERT_TRUE(config.set_flag(find_option("network.port"), "3").ok());
  EXPECT_EQ(config.integer("network.port"), 3);
  EXPECT_EQ(config.origin(find_option("network.port")).where, "--port");
  EXPECT_EQ(config.text("network.host"), "b");
  EXPECT_EQ(config.origin(find_option("network.host")).where, "SPILLWAY_NETWORK_HOST");
  EXPECT_EQ(config.origin(find_option("network.grpc_port")).where, "f.yaml:4:3");
  EXPECT_TRUE(config.is_explicit(Key<Type::kInt>("network.grpc_port")));
  EXPECT_FALSE(config.is_explicit(Key<Type::kInt>("network.metrics_port")));
}

TEST(Config, UnknownKeysAreRefusedWithPlaceAndSuggestion) {
  EXPECT_EQ(refusal("model:\n  percision: fp32\n"),
            "f.yaml:2:3: unknown key model.percision; did you mean model.precision?");
  EXPECT_EQ(refusal("server:\n  port: 80\n"), "f.yaml:2:3: unknown key server.port; did you mean network.port?");
  EXPECT_EQ(refusal("netwrok:\n  port: 80\n"), "f.yaml:1:1: unknown section netwrok; did you mean network?");
  EXPECT_EQ(refusal("completely_different: 1\n"), "f.yaml:1:1: unknown key completely_different");
}

TEST(Config, WrongTypesSayWhatWasExpectedAndFound) {
  EXPECT_EQ(refusal("network: {port: \"80\"}"),
            "f.yaml:1:11: network.port: expected an integer from 0 to 65535, found the string \"80\"");
  EXPECT_THAT(refusal("network: {port: 70000}"), HasSubstr("expected an integer from 0 to 65535, found \"70000\""));
  EXPECT_THAT(refusal("model: {path: 5}"),
              HasSubstr("expected a string, found the integer 5 (put it in quotes to mean text)"));
  EXPECT_THAT(refusal("model: {path: }"), HasSubstr("expected a string, found nothing"));
  EXPECT_THAT(refusal("model: {precision: fp4}"),
              HasSubstr("expected one of fp32, tf32, bf16, fp16, int8, fp8, int4, auto, found \"fp4\""));
  EXPECT_THAT(refusal("model: {precision: [fp32]}"), HasSubstr("found a list"));
  EXPECT_THAT(refusal("model: {precision: {a: b}}"), HasSubstr("found a map"));
  EXPECT_THAT(refusal("hardware: {gpu_ids: 0}"),
              HasSubstr("expected a list, each an integer from 0 to 1023, found the integer 0"));
  EXPECT_THAT(refusal("hardware: {gpu_ids: [0, -1]}"), HasSubstr("found \"-1\""));
  EXPECT_THAT(refusal("engine: {prefix_cache: yes}"), HasSubstr("expected true or false, found the string \"yes\""));
  EXPECT_THAT(refusal("hardware: 3"),
              HasSubstr("f.yaml:1:1: hardware: expected a map of options, found the integer 3"));
  EXPECT_THAT(refusal("server: {drain_timeout: 3 weeks}"), HasSubstr("a duration such as 500ms, 30s or 5m"));
}

TEST(Config, EveryProblemOfAFileIsReported) {
  EXPECT_THAT(refusal("network:\n  prot: 80\n  port: x\n"),
              AllOf(HasSubstr("f.yaml:2:3: "), HasSubstr("\nf.yaml:3:3: ")));
}

TEST(Config, YamlThatCouldExplodeOrMisleadIsRefused) {
  EXPECT_EQ(refusal("model: {name: a, name: b}"), "f.yaml:1:18: model.name is given twice, first in line 1");
  EXPECT_THAT(refusal("model: &m {name: a}\nserver: *m\n"), HasSubstr("f.yaml:1:8: expected a value, found an anchor"));
  EXPECT_THAT(refusal("model: {name: *m}"), HasSubstr("f.yaml:1:"));
  EXPECT_THAT(refusal("model: {name: !!binary aGk=}"), HasSubstr("found the tag"));
  EXPECT_THAT(refusal("[1, 2]"), HasSubstr("expected a map of sections, found a list"));
  EXPECT_THAT(refusal("text"), HasSubstr("expected a map of sections, found a single value"));
  EXPECT_THAT(refusal("model: {name: a\n"), HasSubstr("not YAML"));
  EXPECT_THAT(refusal("a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}"), HasSubstr("at most 8 nested maps"));
  EXPECT_THAT(refusal("model: {name: a}\n---\nmodel: {name: b}\n"), HasSubstr("found several"));
  EXPECT_EQ(refusal(""), "");
  EXPECT_EQ(refusal("model:\n"), "");
}

TEST(Config, UnitsAreRead) {
  Config config;
  ASSERT_TRUE(config
                  .load_yaml("server: {keep_alive_interval: 250ms, drain_timeout: 2m}\nengine: {kv_cache: 2GiB}\n"
                             "limits: {body_bytes: 2048, header_timeout: 5}",
                             "f.yaml")
                  .ok());
  EXPECT_DOUBLE_EQ(config.seconds("server.keep_alive_interval"), 0.25);
  EXPECT_DOUBLE_EQ(config.seconds("server.drain_timeout"), 120);
  EXPECT_EQ(config.bytes("engine.kv_cache"), int64_t(2) << 30);
  EXPECT_EQ(config.bytes("limits.body_bytes"), 2048);
  EXPECT_DOUBLE_EQ(config.seconds("limits.header_timeout"), 5);
}

TEST(Config, EnvironmentNearMissesWarnAndBadValuesFail) {
  Config config;
  ASSERT_TRUE(config.load_environment({"SPILLWAY_NETWORK_PROT=1", "SPILLWAY_SERVICE_HOST=10.0.0.1"}).ok());
  ASSERT_EQ(config.warnings().size(), 1u);
  EXPECT_THAT(config.warnings()[0], HasSubstr("did you mean SPILLWAY_NETWORK_PORT?"));
  const auto status = config.load_environment({"SPILLWAY_NETWORK_PORT=high"});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message,
            "environment: SPILLWAY_NETWORK_PORT: expected an integer from 0 to 65535, found \"high\"");
}

TEST(Config, FlagsAreChecked) {
  Config config;
  const auto status = config.set_flag(find_option("hardware.device"), "tpu");
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "--device: expected one of auto, cpu, cuda, cuda:N, found \"tpu\"");
  EXPECT_TRUE(config.set_flag(find_option("hardware.device"), "cuda:3").ok());
  EXPECT_FALSE(config.set_flag(find_option("hardware.device"), "cuda:x").ok());
  ASSERT_TRUE(config.set_flag(find_option("model.aliases"), "a,b").ok());
  EXPECT_EQ(config.strings("model.aliases"), (std::vector<std::string>{"a", "b"}));
}

TEST(Config, EachModelLaysItsItemOverTheRest) {
  Config config;
  ASSERT_TRUE(config
                  .load_yaml("model: {precision: fp32}\n"
                             "models:\n"
                             "  - name: a\n    path: /models/a\n    aliases: [x, y]\n    batching: {delay_max: 5ms}\n"
                             "  - name: b\n    path: /models/b\n    precision: int8\n    engine.page_tokens: 32\n"
                             "network: {port: 9}\n",
                             "c.yaml")
                  .ok());
  const auto models = config.each_model();
  ASSERT_TRUE(models.ok()) << models.error().message;
  ASSERT_EQ(models->size(), 2u);
  const Config &a = models.value()[0], &b = models.value()[1];
  EXPECT_EQ(a.text("model.name"), "a");
  EXPECT_EQ(a.text("model.precision"), "fp32");
  EXPECT_EQ(a.strings("model.aliases"), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(a.seconds("batching.delay_max"), 0.005);
  EXPECT_EQ(b.text("model.precision"), "int8");
  EXPECT_TRUE(b.strings("model.aliases").empty());
  EXPECT_EQ(b.integer("engine.page_tokens"), 32);
  EXPECT_EQ(b.integer("network.port"), 9);
}

TEST(Config, EachModelNamesWhatIsWrong) {
  Config config;
  ASSERT_TRUE(config.load_yaml("models:\n  - pth: x\n    batch_size: -1\n    network: {port: 1}\n", "c.yaml").ok());
  const auto models = config.each_model();
  ASSERT_FALSE(models.ok());
  const std::string& text = models.error().message;
  EXPECT_NE(text.find("c.yaml:2:5: models[0].pth: expected an option of model, hardware, engine or batching; did you "
                      "mean model.path?"),
            text.npos)
      << text;
  EXPECT_NE(text.find("models[0].batch_size: expected an integer from 0"), text.npos) << text;
  EXPECT_NE(text.find("models[0].network.port: expected an option of"), text.npos) << text;
}

TEST(Render, PrintedConfigurationLoadsBack) {
  Config config;
  ASSERT_TRUE(config
                  .load_yaml("model: {name: \"a \\\"b\\\" # c\", aliases: [\"x,y\", z]}\nhardware: {gpu_ids: [2, 3]}\n"
                             "server: {keep_alive_interval: 1500ms, api_keys: [sesame]}\nlimits: {body_bytes: 5000001}",
                             "f.yaml")
                  .ok());
  const std::string printed = print_yaml(config);
  EXPECT_THAT(printed, ::testing::Not(HasSubstr("sesame")));
  EXPECT_THAT(printed, HasSubstr("# f.yaml:2:12"));
  Config again;
  const auto status = again.load_yaml(printed, "printed.yaml");
  ASSERT_TRUE(status.ok()) << status.error().message;
  for (size_t i = 0; i < kOptionCount; ++i) {
    if (kOptions[i].secret) continue;
    EXPECT_EQ(again.value(i), config.value(i)) << kOptions[i].key;
  }
}

TEST(Render, PasswordsInAddressesAreNotShown) {
  Config config;
  ASSERT_TRUE(config.load_yaml("gateway: {tenants: \"redis://:sesame@db/3\"}", "f.yaml").ok());
  EXPECT_THAT(print_yaml(config), ::testing::Not(HasSubstr("sesame")));
  EXPECT_THAT(print_json(config), ::testing::Not(HasSubstr("sesame")));
  ASSERT_TRUE(config.load_yaml("gateway: {tenants: \"redis://db/3\"}", "f.yaml").ok());
  EXPECT_THAT(print_yaml(config), HasSubstr("redis://db/3"));
}

TEST(Config, AFolderIsNoFile) {
  Config config;
  EXPECT_THAT(config.load_file("/").error().message, HasSubstr("/: expected a readable YAML file"));
}

TEST(Render, CommittedDocumentEqualsTheTable) {
  std::ifstream in(SPILLWAY_SOURCE_DIR "/docs/configuration.md");
  const std::string committed((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(committed, print_markdown()) << "run: spillway config docs > docs/configuration.md";
}

TEST(Options, FlagsAndKeysAreUnique) {
  for (size_t i = 0; i < kOptionCount; ++i) {
    for (size_t j = i + 1; j < kOptionCount; ++j) {
      EXPECT_STRNE(kOptions[i].key, kOptions[j].key);
      EXPECT_STRNE(kOptions[i].flag, kOptions[j].flag);
    }
  }
}

}  // namespace
}  // namespace spillway::config
