// A one-shot model's second start: its packed file is mapped and gives the same bits; a broken one is refused, with the
// same bits, and made anew.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "models/loader.h"
#include "models/one_shot_loader.h"

namespace spillway::models {
namespace {

namespace fs = std::filesystem;
using Mode = weights::PackedCacheOptions::Mode;

class PackedOneShot : public testing::TestWithParam<std::tuple<const char*, PrecisionChoice>> {
 protected:
  PackedOneShot() : folder_(fs::temp_directory_path() / ("packed_one_shot_test_" + std::to_string(::getpid()))) {}
  ~PackedOneShot() override { fs::remove_all(folder_); }

  std::unique_ptr<OneShotModel> load(Mode mode) const {
    const auto& [family, precision] = GetParam();
    LoadOptions options{.path = SPILLWAY_SOURCE_DIR "/tests/golden/" + std::string(family),
                        .precision = precision,
                        .batch_tokens_max = 64,
                        .device = {},
                        .progress = {}};
    options.cache = {.mode = mode, .folder = folder_.string()};
    auto model = load_one_shot_model(options);
    EXPECT_TRUE(model.ok()) << model.error().message;
    return std::move(*model);
  }

  // Outputs for two inputs of different size.
  static std::vector<float> outputs(OneShotModel& model) {
    const OneShotInfo& info = model.info();
    std::vector<int32_t> tokens(19);
    std::iota(tokens.begin(), tokens.end(), 5);
    std::vector<float> pixels(static_cast<size_t>(info.channels * info.height * info.width));
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = float(i % 23) / 23 - 0.5f;
    std::vector<OneShotInput> inputs(2);
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].output = info.outputs.front();
      if (info.vision) {
        inputs[i].pixels = pixels;
      } else {
        inputs[i].tokens = std::span(tokens).subspan(0, i == 0 ? tokens.size() : 7);
      }
    }
    tensor::Stream stream(2);
    std::vector<float> all;
    for (const tensor::TensorView& view : model.run(inputs, stream)) {
      all.insert(all.end(), view.as<float>(), view.as<float>() + view.elements());
    }
    return all;
  }

  fs::path only_file() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == ".packed") found.push_back(entry.path());
    }
    EXPECT_EQ(found.size(), 1u);
    return found.empty() ? fs::path() : found.front();
  }

  static ino_t inode_of(const fs::path& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_ino;
  }

  // Whether this process has the file mapped.
  static bool is_mapped(const fs::path& path) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      if (line.find(path.string()) != std::string::npos) return true;
    }
    return false;
  }

  static bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  fs::path folder_;
};

INSTANTIATE_TEST_SUITE_P(Families, PackedOneShot,
                         testing::Combine(testing::Values("bert", "modernbert", "nomic_bert", "xlm_roberta_reranker"),
                                          testing::Values(PrecisionChoice::kFp32, PrecisionChoice::kBf16,
                                                          PrecisionChoice::kInt8)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(int(std::get<1>(info.param)));
                         });

TEST_P(PackedOneShot, TheSecondStartMapsTheFileAndComputesTheSameBits) {
  const auto plain = load(Mode::kOff);
  const auto expected = outputs(*plain);
  EXPECT_FALSE(fs::exists(folder_));
  EXPECT_TRUE(same_bits(outputs(*load(Mode::kOn)), expected));
  const fs::path file = only_file();
  const ino_t written = inode_of(file);
  const auto second = load(Mode::kOn);
  EXPECT_TRUE(is_mapped(file));
  EXPECT_TRUE(same_bits(outputs(*second), expected));
  EXPECT_EQ(second->info().weight_bytes, plain->info().weight_bytes);
  EXPECT_EQ(inode_of(only_file()), written);  // all came from it, or it would have been written again
}

TEST_P(PackedOneShot, ABrokenFileIsRefusedAndMadeAnew) {
  const auto expected = outputs(*load(Mode::kOn));
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
    EXPECT_TRUE(same_bits(outputs(*load(Mode::kOn)), expected)) << damage;
    EXPECT_EQ(fs::file_size(only_file()), size) << damage;
    EXPECT_TRUE(same_bits(outputs(*load(Mode::kOn)), expected)) << damage;
  }
}

}  // namespace
}  // namespace spillway::models
