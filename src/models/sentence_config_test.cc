// What folders published for sentence-transformers and image processors say, and the trained digits model end to end.
#include "models/sentence_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "models/image_config.h"
#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

namespace fs = std::filesystem;

class Folder : public testing::Test {
 protected:
  Folder() {
    path_ = (fs::temp_directory_path() / ("spillway_sentence_" + std::to_string(::getpid()))).string();
    fs::create_directories(path_);
  }
  ~Folder() override { fs::remove_all(path_); }

  void write(const std::string& name, const std::string& text) const {
    const fs::path file = fs::path(path_) / name;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string path_;
};

constexpr const char* kModules = R"([
  {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
  {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
  {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}])";

TEST_F(Folder, APublishedFolderSaysHowVectorsAreMade) {
  write("modules.json", kModules);
  write("1_Pooling/config.json", R"({"word_embedding_dimension": 8, "pooling_mode_cls_token": true,
        "pooling_mode_mean_tokens": false})");
  write("2_Dense/config.json", R"({"in_features": 8, "out_features": 4, "bias": true,
        "activation_function": "torch.nn.modules.linear.Identity"})");
  write("sentence_bert_config.json", R"({"max_seq_length": 256})");
  write("config_sentence_transformers.json", R"({"prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt_name": null, "similarity_fn_name": "dot"})");
  const auto config = read_sentence_config(path_);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_TRUE(config->published && config->normalize);
  EXPECT_EQ(config->pooling, kernels::Pooling::kFirst);
  ASSERT_EQ(config->dense.size(), 1u);
  EXPECT_EQ(config->dense[0].outputs, 4);
  EXPECT_EQ(config->tokens_max, 256);
  EXPECT_EQ(config->prompts.at("query"), "query: ");
  EXPECT_EQ(config->similarity, "dot");
}

TEST_F(Folder, WithoutModulesTheMeanIsTakenAsItIs) {
  const auto config = read_sentence_config(path_);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_FALSE(config->published || config->normalize);
  EXPECT_EQ(config->pooling, kernels::Pooling::kMean);
}

TEST_F(Folder, EveryPoolingIsReadInBothForms) {
  using kernels::Pooling;
  const std::pair<const char*, Pooling> modes[] = {
      {R"({"pooling_mode_lasttoken": true})", Pooling::kLast},
      {R"({"pooling_mode_max_tokens": true})", Pooling::kMax},
      {R"({"pooling_mode": "lasttoken"})", Pooling::kLast},
      {R"({"pooling_mode": "cls"})", Pooling::kFirst},
      {R"({"pooling_mode": "mean"})", Pooling::kMean},
      {R"({"pooling_mode_mean_sqrt_len_tokens": true})", Pooling::kMeanSqrtLength}};
  write("modules.json", R"([{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
  for (const auto& [text, pooling] : modes) {
    write("1_Pooling/config.json", text);
    const auto config = read_sentence_config(path_);
    ASSERT_TRUE(config.ok()) << config.error().message;
    EXPECT_EQ(config->pooling, pooling) << text;
  }
}

TEST_F(Folder, WhatCannotBeServedIsRefused) {
  write("modules.json", R"([{"path": "../outside", "type": "sentence_transformers.models.Pooling"}])");
  EXPECT_FALSE(read_sentence_config(path_).ok());
  write("modules.json", R"([{"path": "", "type": "sentence_transformers.models.WordWeights"}])");
  EXPECT_FALSE(read_sentence_config(path_).ok());
  write("modules.json", R"([{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
  write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})");
  EXPECT_FALSE(read_sentence_config(path_).ok());
  write("modules.json", R"({"not": "a list"})");
  EXPECT_FALSE(read_sentence_config(path_).ok());
}

TEST_F(Folder, ImageProcessorsSayHowPicturesAreScaled) {
  EXPECT_EQ(read_image_config(path_)->height(), 224);
  write("preprocessor_config.json", R"({"crop_pct": 0.875, "size": {"shortest_edge": 224}, "resample": 3,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})");
  auto config = read_image_config(path_);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->shortest_edge, 256);
  EXPECT_TRUE(config->center_crop);
  EXPECT_EQ(config->height(), 224);
  EXPECT_EQ(config->filter, ImageConfig::Filter::kBicubic);
  EXPECT_EQ(config->deviation[2], 0.25);
  write("preprocessor_config.json",
        R"({"size": 32, "do_center_crop": false, "image_mean": [0.5], "image_std": [0.5]})");
  config = read_image_config(path_);
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->channels, 1);
  EXPECT_EQ(config->width(), 32);
  for (const char* wrong : {R"({"size": {"height": 0, "width": 4}})", R"({"image_std": [0, 1, 1]})",
                            R"({"image_mean": [1, 2]})", R"({"resample": 7})"}) {
    write("preprocessor_config.json", wrong);
    EXPECT_FALSE(read_image_config(path_).ok()) << wrong;
  }
}

class Digits : public testing::TestWithParam<PrecisionChoice> {};
INSTANTIATE_TEST_SUITE_P(Precisions, Digits,
                         testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16, PrecisionChoice::kInt8));

TEST_P(Digits, HeldOutPicturesAreReadRight) {
  const std::string folder = SPILLWAY_SOURCE_DIR "/models/digits-resnet";
  const auto image = read_image_config(folder);
  ASSERT_TRUE(image.ok()) << image.error().message;
  auto model =
      load_one_shot_model({.path = folder, .precision = GetParam(), .device = {}, .threads = 2, .progress = {}});
  ASSERT_TRUE(model.ok()) << model.error().message;
  const auto file = weights::open_safetensors(folder + "/test.safetensors");
  ASSERT_TRUE(file.ok());
  const auto pixels = (*file)->open("pixels", {}, {}), labels = (*file)->open("labels", {}, {});
  ASSERT_TRUE(pixels.ok() && labels.ok());
  const OneShotInfo& info = (*model)->info();
  const int64_t count = labels->shape()[0], area = int64_t(info.height) * info.width;
  ASSERT_EQ(pixels->shape().elements(), count * area);
  const auto* bytes = pixels->view().raw<const uint8_t>();
  tensor::Stream stream(2);
  int right = 0;
  for (int64_t first = 0; first < count; first += 32) {
    const int64_t some = std::min<int64_t>(32, count - first);
    std::vector<float> values;
    for (int64_t i = first * area; i < (first + some) * area; ++i)
      values.push_back(float((double(bytes[i]) * image->rescale - image->mean[0]) / image->deviation[0]));
    std::vector<OneShotInput> batch;
    for (int64_t i = 0; i < some; ++i) {
      OneShotInput input;
      input.pixels = std::span(values).subspan(size_t(i * area), size_t(area));
      input.output = OneShotOutput::kScores;
      ASSERT_TRUE(check_input(info, input).ok());
      batch.push_back(input);
    }
    const auto scores = (*model)->run(batch, stream);
    for (int64_t i = 0; i < some; ++i) {
      const float* row = scores[size_t(i)].as<float>();
      const auto best = std::max_element(row, row + scores[size_t(i)].elements()) - row;
      int32_t label = 0;
      std::memcpy(&label, labels->view().data + (first + i) * 4, 4);
      right += info.labels[size_t(best)] == std::to_string(label);
    }
  }
  EXPECT_GE(double(right) / double(count), 0.97) << right << " of " << count;
}

}  // namespace
}  // namespace spillway::models
