#include "models/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include "models/loader.h"
#include "models/model_folder.h"

namespace spillway::models {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

json::object qwen(const std::string& extra = "") {
  return json::parse(R"({"architectures":["Qwen2ForCausalLM"],"vocab_size":300,"hidden_size":128,"num_hidden_layers":2,
    "num_attention_heads":8,"num_key_value_heads":2,"intermediate_size":256,"max_position_embeddings":4096,"unheard_of":{"a":1})" +
                     (extra.empty() ? "" : "," + extra) + "}")
      .as_object();
}

TEST(Config, TakesDefaultsAndToleratesUnknownKeys) {
  const auto config = parse_qwen2_config(qwen());
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->rope_theta, 10000);
  EXPECT_EQ(parse_qwen3_config(qwen())->head_dim, 128);
}

TEST(Config, NamesWhatIsMissingOrWrong) {
  json::object config = qwen();
  config.erase("hidden_size");
  EXPECT_THAT(parse_qwen2_config(config).error().message, HasSubstr("expected key 'hidden_size'"));
  config = qwen(R"("rms_norm_eps":"small")");
  EXPECT_THAT(parse_qwen2_config(config).error().message,
              HasSubstr(R"(rms_norm_eps: expected a number, found "small")"));
  config = qwen();
  config["num_key_value_heads"] = 3;
  EXPECT_THAT(parse_qwen2_config(config).error().message, HasSubstr("multiple of num_key_value_heads, found 8 and 3"));
  config = qwen();
  config["vocab_size"] = -5;
  EXPECT_THAT(parse_qwen2_config(config).error().message, HasSubstr("vocab_size: expected an integer in [1,"));
  EXPECT_THAT(parse_qwen2_config(qwen(R"("hidden_act":"gelu")")).error().message,
              HasSubstr("expected 'silu', found 'gelu'"));
}

TEST(Config, SlidingWindowMattersOnlyWhenActiveAndShort) {
  EXPECT_TRUE(parse_qwen2_config(qwen(R"("sliding_window":64,"use_sliding_window":false)")).ok());
  EXPECT_TRUE(parse_qwen2_config(qwen(R"("sliding_window":4096,"use_sliding_window":true)")).ok());
  EXPECT_THAT(parse_qwen2_config(qwen(R"("sliding_window":64,"use_sliding_window":true)")).error().message,
              HasSubstr("found an active window of 64"));
}

TEST(Config, ReadsRopeScalingInAllItsSpellings) {
  const auto old_yarn = parse_qwen2_config(
      qwen(R"("rope_theta":1e6,"rope_scaling":{"type":"yarn","factor":4.0,"original_max_position_embeddings":1024})"));
  ASSERT_TRUE(old_yarn.ok()) << old_yarn.error().message;
  EXPECT_EQ(old_yarn->rope_scaling.kind, nn::RopeScaling::Kind::kYarn);
  EXPECT_EQ(old_yarn->rope_scaling.original_max_position, 1024);
  const auto parameters =
      parse_llama_config(qwen(R"("rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":8.0,
    "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":1024})"));
  ASSERT_TRUE(parameters.ok()) << parameters.error().message;
  EXPECT_EQ(parameters->rope_theta, 500000);
  EXPECT_EQ(parameters->rope_scaling.kind, nn::RopeScaling::Kind::kLlama3);
  EXPECT_EQ(parse_qwen2_config(qwen(R"("rope_scaling":{"type":"linear","factor":2})"))->rope_scaling.factor, 2);
  EXPECT_EQ(parse_qwen2_config(qwen(R"("rope_scaling":null)"))->rope_scaling.kind, nn::RopeScaling::Kind::kNone);
  EXPECT_THAT(parse_qwen2_config(qwen(R"("rope_scaling":{"type":"dynamic","factor":2})")).error().message,
              HasSubstr("default, linear, llama3, yarn; found 'dynamic'"));
}

TEST(Config, ReadsDeepseekAndItsQuantization) {
  const auto object = read_config(SPILLWAY_SOURCE_DIR "/models/tiny-r1");
  ASSERT_TRUE(object.ok());
  const auto config = parse_deepseek_v3_config(**object);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_TRUE(config->fp8_blocks);
  EXPECT_EQ(config->q_lora_rank, 96);
  EXPECT_EQ(config->mtp_layers, 1);
  EXPECT_EQ(config->dense_layers, 1);
  json::object changed = **object;
  changed["q_lora_rank"] = nullptr;
  EXPECT_EQ(parse_deepseek_v3_config(changed)->q_lora_rank, 0);
  changed["quantization_config"].as_object()["weight_block_size"] = json::array{64, 64};
  EXPECT_THAT(parse_deepseek_v3_config(changed).error().message, HasSubstr("weight_block_size [128, 128]"));
  changed = **object;
  changed["n_group"] = 3;
  EXPECT_THAT(parse_deepseek_v3_config(changed).error().message, HasSubstr("routing"));
}

TEST(Registry, SaysWhatItServes) {
  EXPECT_THAT(find_family(json::parse(R"({"architectures":["BertModel"]})").as_object()).error().message,
              testing::AllOf(HasSubstr("is no language model: it answers in one pass"),
                             HasSubstr("DeepseekV3ForCausalLM, LlamaForCausalLM")));
  EXPECT_THAT(find_family(json::parse(R"({"architectures":["MambaForCausalLM"]})").as_object()).error().message,
              HasSubstr("'MambaForCausalLM' is not supported"));
  EXPECT_FALSE(find_family(json::object{}).ok());
}

TEST(ModelFolder, CompletesGenerationConfig) {
  const auto folder = read_model_folder(SPILLWAY_SOURCE_DIR "/models/tiny-r1");
  ASSERT_TRUE(folder.ok()) << folder.error().message;
  EXPECT_EQ(folder->name, "tiny-r1");
  EXPECT_EQ(folder->generation.eos_token_ids, std::vector<int32_t>{1});
  EXPECT_EQ(folder->generation.temperature, 0.6);
  EXPECT_THAT(folder->tokenizer_path, HasSubstr("tokenizer.json"));
  EXPECT_TRUE(folder->chat_template_path.empty());
  EXPECT_FALSE(read_model_folder("/nowhere").ok());
}

}  // namespace
}  // namespace spillway::models
