// A model whose weights come from its packed file computes the same bits as one that packs them; a file that does not
// fit is never used.
#include "models/packed_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "models/loader.h"

namespace spillway::models {
namespace {

namespace fs = std::filesystem;
using Mode = weights::PackedCacheOptions::Mode;

const std::string kGolden = SPILLWAY_SOURCE_DIR "/tests/golden/";

class PackedWeightsTest : public testing::TestWithParam<std::tuple<const char*, PrecisionChoice>> {
 protected:
  PackedWeightsTest() : folder_(fs::temp_directory_path() / ("packed_weights_test_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~PackedWeightsTest() override { fs::remove_all(folder_); }

  std::unique_ptr<LanguageModel> load(const std::string& path, PrecisionChoice precision, Mode mode,
                                      int64_t pack_later_bytes_min = INT64_MAX) const {
    LoadOptions options{.path = path, .precision = precision, .batch_tokens_max = 64, .device = {}, .progress = {}};
    options.cache = {.mode = mode, .folder = (folder_ / "cache").string()};
    options.pack_later_bytes_min = pack_later_bytes_min;
    auto model = load_model(options);
    EXPECT_TRUE(model.ok()) << model.error().message;
    return std::move(*model);
  }

  // Logits of a prompt, and of the step after it.
  static std::vector<float> logits(LanguageModel& model) {
    auto kv = nn::KvStorage::create(model.info().kv, 16, 4, {});
    tensor::Stream stream(2);
    std::vector<int32_t> tokens(21), pages = {2, 0, 1};
    std::iota(tokens.begin(), tokens.end(), 3);
    std::vector<float> all;
    for (const auto& [begin, count] : {std::pair(0, 20), std::pair(20, 1)}) {
      const SequenceInput input{.tokens = std::span(tokens).subspan(size_t(begin), size_t(count)),
                                .position = begin,
                                .pages = pages,
                                .logits_rows = 1};
      const tensor::TensorView rows = model.forward(std::span(&input, 1), *kv, stream);
      all.insert(all.end(), rows.as<float>(), rows.as<float>() + rows.elements());
    }
    return all;
  }

  fs::path only_file() const {
    fs::path found;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache")) {
      if (entry.path().extension() != ".packed") continue;
      EXPECT_TRUE(found.empty());
      found = entry.path();
    }
    EXPECT_FALSE(found.empty());
    return found;
  }

  // A copy of a golden's checkpoint that a test may change.
  std::string copied(const std::string& family) const {
    const fs::path to = folder_ / family;
    fs::copy(kGolden + family, to, fs::copy_options::recursive);
    return to.string();
  }

  fs::path folder_;
};

INSTANTIATE_TEST_SUITE_P(Families, PackedWeightsTest,
                         testing::Combine(testing::Values("deepseek_v3", "deepseek_v3_fp8", "llama", "qwen2", "qwen3"),
                                          testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16,
                                                          PrecisionChoice::kInt8)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(int(std::get<1>(info.param)));
                         });

ino_t inode_of(const fs::path& path) {
  struct stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return info.st_ino;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_P(PackedWeightsTest, TheFileComputesTheSameBits) {
  const auto& [family, precision] = GetParam();
  const auto plain = load(kGolden + family, precision, Mode::kOff);
  const auto expected = logits(*plain);
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
  EXPECT_TRUE(same_bits(logits(*load(kGolden + family, precision, Mode::kOn)), expected));
  const fs::path file = only_file();
  const ino_t written = inode_of(file);
  const auto second = load(kGolden + family, precision, Mode::kOn);
  EXPECT_TRUE(same_bits(logits(*second), expected));
  EXPECT_EQ(second->info().weight_bytes, plain->info().weight_bytes);
  EXPECT_EQ(inode_of(only_file()), written);  // all came from it, or it would have been written again
}

// Goldens are float32 and FP8, which fp32 precision computes with as stored, and int8 quantises (float32 on the way).
class LateWeightsTest : public PackedWeightsTest {
 protected:
  static constexpr std::chrono::milliseconds kNever{1'000'000}, kAtOnce{0};

  std::unique_ptr<LanguageModel> load_late(Mode mode, std::chrono::milliseconds pack_after) const {
    const auto& [family, precision] = GetParam();
    LoadOptions options{
        .path = kGolden + family, .precision = precision, .batch_tokens_max = 64, .device = {}, .progress = {}};
    options.cache = {.mode = mode, .folder = (folder_ / "cache").string(), .write_after = kAtOnce};
    options.pack_later_bytes_min = 0;
    options.pack_after = pack_after;
    auto model = load_model(options);
    EXPECT_TRUE(model.ok()) << model.error().message;
    return std::move(*model);
  }

  std::vector<float> expected() const {
    return logits(*load(kGolden + std::get<0>(GetParam()), std::get<1>(GetParam()), Mode::kOff));
  }

  template <class Condition>
  static void wait_for(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    EXPECT_TRUE(condition());
  }
};
INSTANTIATE_TEST_SUITE_P(Families, LateWeightsTest,
                         testing::Combine(testing::Values("deepseek_v3", "deepseek_v3_fp8", "llama", "qwen2", "qwen3"),
                                          testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kInt8)));

TEST_P(LateWeightsTest, ComputeTheSameBitsFromRowsWhileTheyArePackedAndAfter) {
  const auto bits = expected();
  const auto unpacked = load_late(Mode::kOff, kNever);
  EXPECT_TRUE(same_bits(logits(*unpacked), bits));
  EXPECT_FALSE(unpacked->settled());
  EXPECT_GT(unpacked->info().mapped_bytes, 0);
  const auto model = load_late(Mode::kOff, kAtOnce);
  do {
    EXPECT_TRUE(same_bits(logits(*model), bits));
  } while (!model->settled());
  EXPECT_TRUE(same_bits(logits(*model), bits));
}

TEST_P(LateWeightsTest, AreWrittenToTheFileThatTheNextStartMaps) {
  const auto bits = expected();
  {
    const auto model = load_late(Mode::kAuto, kAtOnce);
    wait_for([&] { return weights::cache_use((folder_ / "cache").string()).files == 1; });
    EXPECT_TRUE(model->settled());
  }
  const ino_t written = inode_of(only_file());
  const auto second = load_late(Mode::kAuto, kAtOnce);
  EXPECT_TRUE(second->settled());
  EXPECT_TRUE(same_bits(logits(*second), bits));
  EXPECT_TRUE(same_bits(logits(*load(kGolden + std::get<0>(GetParam()), std::get<1>(GetParam()), Mode::kOn)), bits));
  EXPECT_EQ(inode_of(only_file()), written);
}

TEST_P(LateWeightsTest, AreGivenUpWhenTheModelGoes) {
  load_late(Mode::kAuto, kNever);
  EXPECT_EQ(weights::cache_use((folder_ / "cache").string()).files, 0);
  for (int i = 0; i < 5; ++i) load_late(Mode::kOff, kAtOnce);  // at whatever point
}

TEST_P(LateWeightsTest, AreThereAtOnceForACacheThatIsWrittenBeforeAndOfSmallCheckpoints) {
  EXPECT_TRUE(load_late(Mode::kOn, kNever)->settled());
  EXPECT_NE(only_file(), fs::path());
  const auto& [family, precision] = GetParam();
  LoadOptions options{
      .path = kGolden + family, .precision = precision, .batch_tokens_max = 64, .device = {}, .progress = {}};
  options.cache.mode = Mode::kOff;
  options.pack_after = kNever;
  EXPECT_TRUE((*load_model(options))->settled());
}

class PackedFileOfAModel : public PackedWeightsTest {};
INSTANTIATE_TEST_SUITE_P(One, PackedFileOfAModel,
                         testing::Values(std::tuple<const char*, PrecisionChoice>{"qwen2", PrecisionChoice::kInt8}));

TEST_P(PackedFileOfAModel, IsMadeAnewWhenItIsBroken) {
  const std::string path = kGolden + std::get<0>(GetParam());
  const auto expected = logits(*load(path, PrecisionChoice::kInt8, Mode::kOn));
  const fs::path file = only_file();
  const auto size = fs::file_size(file);
  for (const int damage : {0, 1, 2}) {
    if (damage == 0) fs::resize_file(file, size - 100);
    if (damage == 1) fs::resize_file(file, 30);
    if (damage == 2) {
      std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
      stream.seekp(std::streamoff(size - 1000));
      stream << "damage";
    }
    EXPECT_TRUE(same_bits(logits(*load(path, PrecisionChoice::kInt8, Mode::kOn)), expected)) << damage;
    EXPECT_EQ(fs::file_size(only_file()), size) << damage;
  }
}

TEST_P(PackedFileOfAModel, IsNotUsedForAChangedCheckpoint) {
  const std::string path = copied(std::get<0>(GetParam()));
  const auto before = logits(*load(path, PrecisionChoice::kInt8, Mode::kOn));
  const fs::path weights = fs::path(path) / "model.safetensors";
  const auto changed = fs::last_write_time(weights);
  {
    std::fstream stream(weights, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(std::streamoff(fs::file_size(weights) / 2));
    stream << std::string(20'000, '\1');
  }
  fs::last_write_time(weights, changed);  // as archives restore it
  const auto expected = logits(*load(path, PrecisionChoice::kInt8, Mode::kOff));
  ASSERT_FALSE(same_bits(before, expected));
  EXPECT_TRUE(same_bits(logits(*load(path, PrecisionChoice::kInt8, Mode::kOn)), expected));
  EXPECT_TRUE(same_bits(logits(*load(path, PrecisionChoice::kInt8, Mode::kOn)), expected));
}

TEST_P(PackedFileOfAModel, IsOnePerPrecision) {
  const std::string path = kGolden + std::get<0>(GetParam());
  load(path, PrecisionChoice::kInt8, Mode::kOn);
  only_file();
  load(path, PrecisionChoice::kFp32, Mode::kOn);
  EXPECT_EQ(weights::cache_use((folder_ / "cache").string()).files, 2);
}

TEST_P(PackedFileOfAModel, InTheBackgroundIsGivenUpWhenTheModelGoes) {
  const std::string path = kGolden + std::get<0>(GetParam());
  load(path, PrecisionChoice::kInt8, Mode::kAuto);
  EXPECT_EQ(weights::cache_use((folder_ / "cache").string()).files, 0);
}

TEST_P(PackedFileOfAModel, IsNotMadeOfRandomWeights) {
  LoadOptions options{.path = kGolden + std::get<0>(GetParam()),
                      .random_weights = true,
                      .batch_tokens_max = 64,
                      .device = {},
                      .progress = {}};
  options.cache = {.mode = Mode::kOn, .folder = (folder_ / "cache").string()};
  ASSERT_TRUE(load_model(options).ok());
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
}

TEST_P(PackedFileOfAModel, WithoutAFolderToWriteToTheModelLoads) {
  std::ofstream(folder_ / "cache") << "in the way";
  EXPECT_NE(load(kGolden + std::get<0>(GetParam()), PrecisionChoice::kInt8, Mode::kOn), nullptr);
}

}  // namespace
}  // namespace spillway::models
