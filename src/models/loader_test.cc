// Loading: configurations that no golden covers (with random weights), and what a folder that does not fit says.
#include "models/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "kernels/isa.h"
#include "models/model_folder.h"

namespace spillway::models {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using testing::HasSubstr;

class LoadModel : public testing::Test {
 protected:
  LoadModel() : folder_(fs::temp_directory_path() / ("loader_test_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~LoadModel() override { fs::remove_all(folder_); }

  // A golden's config.json with changed keys (null values as given).
  std::string write_config(const std::string& source, const json::object& changes) {
    json::object config = **read_config(std::string(SPILLWAY_SOURCE_DIR) + source);
    for (const auto& [key, value] : changes) config[key] = value;
    std::ofstream(folder_ / "config.json") << json::serialize(config);
    return folder_.string();
  }

  Result<std::unique_ptr<LanguageModel>> load_random(const std::string& source, const json::object& changes) {
    return load_model({.path = write_config(source, changes),
                       .random_weights = true,
                       .batch_tokens_max = 64,
                       .device = {},
                       .progress = {}});
  }

  // Logits after a prompt of 20 tokens and one more, which must be numbers that differ.
  void expect_runs(LanguageModel& model) {
    auto kv = nn::KvStorage::create(model.info().kv, 16, 4, {});
    ASSERT_TRUE(kv.ok());
    tensor::Stream stream(2);
    std::vector<int32_t> tokens(21), pages = {2, 0, 1};
    std::iota(tokens.begin(), tokens.end(), 3);
    for (const auto& [begin, count] : {std::pair(0, 20), std::pair(20, 1)}) {
      const SequenceInput input{.tokens = std::span(tokens).subspan(size_t(begin), size_t(count)),
                                .position = begin,
                                .pages = pages,
                                .logits_rows = 1};
      const tensor::TensorView logits = model.forward(std::span(&input, 1), *kv, stream);
      ASSERT_EQ(logits.shape, (tensor::Shape{1, model.info().vocab_size}));
      for (int i = 0; i < model.info().vocab_size; ++i) ASSERT_TRUE(std::isfinite(logits.as<float>()[i]));
      EXPECT_NE(logits.as<float>()[0], logits.as<float>()[1]);
    }
  }

  fs::path folder_;
};

TEST_F(LoadModel, DeepseekWithoutQueryLoraAndWithDraftLayer) {
  const auto model =
      load_random("/tests/golden/deepseek_v3", {{"q_lora_rank", nullptr}, {"num_nextn_predict_layers", 1}});
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ((*model)->info().draft_tokens_max, 1);
  EXPECT_EQ((*model)->info().kv.layer_widths, std::vector<int>(4, 80));
  expect_runs(**model);
}

TEST_F(LoadModel, DeepseekWithoutExpertsAndWithHalfRotation) {
  const auto model =
      load_random("/tests/golden/deepseek_v3_fp8",
                  {{"n_routed_experts", nullptr}, {"rope_interleave", false}, {"rope_scaling", nullptr}});
  ASSERT_TRUE(model.ok()) << model.error().message;
  EXPECT_EQ((*model)->info().draft_tokens_max, 0);
  expect_runs(**model);
}

TEST_F(LoadModel, LlamaWithAllBiasesAndTiedHead) {
  const auto untied = load_random("/tests/golden/llama", {});
  const auto model = load_random(
      "/tests/golden/llama",
      {{"attention_bias", true}, {"mlp_bias", true}, {"tie_word_embeddings", true}, {"torch_dtype", "float16"}});
  ASSERT_TRUE(model.ok() && untied.ok()) << model.error().message;
  // 3 layers of biases on q, k, v, o, gate, up and down, less a head of its own.
  EXPECT_EQ((*model)->info().parameters,
            (*untied)->info().parameters + 3 * (128 + 32 + 32 + 128 + 256 + 256 + 128) - 300 * 128);
  expect_runs(**model);
}

TEST_F(LoadModel, TellsTheTruthOfItsSize) {
  const auto model = load_model({.path = SPILLWAY_SOURCE_DIR "/tests/golden/qwen2",
                                 .precision = PrecisionChoice::kFp32,
                                 .device = {},
                                 .progress = {}});
  ASSERT_TRUE(model.ok());
  const ModelInfo& info = (*model)->info();
  EXPECT_EQ(info.parameters,
            300 * 128 * 2 + 128 + 3 * (128 * (128 + 32 + 32) + 192 + 128 * 128 + 3 * 128 * 256 + 2 * 128));
  EXPECT_EQ(info.precision, "fp32");
  EXPECT_EQ(info.kv.dtype, tensor::DType::kF32);
  // All but the table is read; panels of 32 outputs round up.
  EXPECT_GE(info.decode_bytes, 4 * (info.parameters - 300 * 128));
  EXPECT_LE(info.decode_bytes, info.weight_bytes);
}

TEST_F(LoadModel, AutoPrecisionFollowsTheCheckpoint) {
  DecoderConfig config;
  config.dtype = "float32";
  EXPECT_EQ(resolve_precision(PrecisionChoice::kAuto, config), kernels::Precision::kFp32);
  EXPECT_EQ(resolve_precision(PrecisionChoice::kInt8, config), kernels::Precision::kInt8);
  config.dtype = "bfloat16";
  const kernels::IsaLevel before = kernels::active_isa();
  for (const kernels::IsaLevel level : kernels::available_isas()) {
    kernels::force_isa(level);
    EXPECT_EQ(resolve_precision(PrecisionChoice::kAuto, config) == kernels::Precision::kBf16,
              kernels::has_bf16_products(level))
        << kernels::name_of(level);
  }
  kernels::force_isa(before);
}

TEST(Layers, OfASlice) {
  EXPECT_TRUE(parse_layers("").value().all());
  const LayerRange range = parse_layers("3:11").value();
  EXPECT_EQ(range.begin, 3);
  EXPECT_EQ(range.end, 11);
  for (const char* wrong : {"3", "3:", ":4", "4:4", "-1:2", "2:4x", "a:b"}) {
    EXPECT_THAT(parse_layers(wrong).error().message, HasSubstr("expected A:B")) << wrong;
  }
}

TEST_F(LoadModel, ASliceRunsItsLayersOnMadeUpStates) {
  for (const char* family : {"llama", "deepseek_v3_fp8"}) {
    LoadOptions options;
    options.path = std::string(SPILLWAY_SOURCE_DIR "/tests/golden/") + family;
    const auto whole = load_model(options);
    ASSERT_TRUE(whole.ok()) << whole.error().message;
    options.layers = {1, 2};
    const auto slice = load_model(options);
    ASSERT_TRUE(slice.ok()) << slice.error().message;
    EXPECT_EQ((*slice)->info().kv.layer_widths.size(), 1u);
    EXPECT_GT((*whole)->info().kv.layer_widths.size(), 1u);
    auto kv = nn::KvStorage::create((*slice)->info().kv, 16, 1, {});
    ASSERT_TRUE(kv.ok());
    tensor::Stream stream(1);
    const std::vector<int32_t> tokens = {5, 900}, pages = {0};
    const SequenceInput input{.tokens = tokens, .position = 0, .pages = pages, .logits_rows = 2};
    const tensor::TensorView logits = (*slice)->forward(std::span(&input, 1), *kv, stream);
    ASSERT_EQ(logits.shape[1], (*slice)->info().vocab_size);
    float largest = 0;
    for (int64_t i = 0; i < logits.elements(); ++i) {
      ASSERT_TRUE(std::isfinite(logits.as<float>()[i]));
      largest = std::max(largest, std::abs(logits.as<float>()[i]));
    }
    EXPECT_GT(largest, 0.01f);
    options.layers = {1, 99};
    EXPECT_THAT(load_model(options).error().message, HasSubstr("expected a part of 0:"));
  }
}

TEST_F(LoadModel, NamesWhatDoesNotFit) {
  EXPECT_THAT(load_model({.path = "/nowhere", .device = {}, .progress = {}}).error().message,
              HasSubstr("expected a folder with config.json"));
  EXPECT_THAT(parse_precision("fp4").error().message,
              HasSubstr("expected auto, fp32, tf32, bf16, fp16, int8, fp8 or int4; found 'fp4'"));
  for (const char* name : {"tf32", "fp16", "fp8", "int4"}) {
    const PrecisionChoice choice = *parse_precision(name);
    EXPECT_EQ(check_precision(choice, {tensor::DeviceKind::kCuda, 0}).ok(), choice != PrecisionChoice::kFp16);
    EXPECT_THAT(check_precision(choice, {}).error().message,
                HasSubstr(std::string("expected auto, fp32, bf16 or int8 on a CPU; found ") + name));
  }
  const std::string path = write_config("/tests/golden/llama", {{"intermediate_size", 512}});
  EXPECT_THAT(load_model({.path = path, .device = {}, .progress = {}}).error().message,
              HasSubstr("expected model.safetensors"));
  fs::create_symlink(SPILLWAY_SOURCE_DIR "/tests/golden/llama/model.safetensors", folder_ / "model.safetensors");
  EXPECT_EQ(load_model({.path = path, .device = {}, .progress = {}}).error().message,
            "tensor 'model.layers.0.mlp.gate_proj.weight': expected shape [512, 128], found [256, 128]");
  EXPECT_THAT(load_model({.path = path, .device = {tensor::DeviceKind::kCuda, 0}, .progress = {}}).ok(), false);
}

}  // namespace
}  // namespace spillway::models
