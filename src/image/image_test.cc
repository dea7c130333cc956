// Against what Pillow makes of the same files: tests/golden/images/make_images.py.
#include "image/image.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "image/preprocessor.h"
#include "image/resize.h"

namespace spillway::image {
namespace {

std::string read(const std::string& name) {
  std::ifstream file(SPILLWAY_SOURCE_DIR "/tests/golden/images/" + name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

Image decoded(const std::string& name) {
  auto image = decode(read(name));
  EXPECT_TRUE(image.ok()) << name << ": " << image.error().message;
  return image.ok() ? std::move(image).value() : Image();
}

int most_apart(const Image& a, const Image& b) {
  if (a.width != b.width || a.height != b.height) return 1000;
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
  return most;
}

TEST(Decode, PngIsExactlyWhatPillowReads) {
  for (const char* name : {"rgb.png", "gray.png", "palette.png", "one_bit.png", "alpha.png", "gray_alpha.png"}) {
    EXPECT_EQ(most_apart(decoded(name), decoded(std::string("expected/") + name + ".decoded.png")), 0) << name;
  }
}

TEST(Decode, JpegIsWhatPillowReadsUpToItsRounding) {
  for (const char* name : {"420.jpg", "444_progressive.jpg", "gray.jpg", "cmyk.jpg"}) {
    EXPECT_LE(most_apart(decoded(name), decoded(std::string("expected/") + name + ".decoded.png")), 1) << name;
  }
}

TEST(Decode, SaysWhatIsWrong) {
  EXPECT_NE(decode("GIF89a").error().message.find("expected a JPEG or PNG file, found 6 bytes that begin with 4749"),
            std::string::npos);
  EXPECT_FALSE(decode("").ok());
  for (const char* name : {"rgb.png", "420.jpg", "444_progressive.jpg", "palette.png"}) {
    const std::string whole = read(name);
    for (const size_t size : {whole.size() / 2, whole.size() - 20, size_t{40}}) {
      EXPECT_FALSE(decode(whole.substr(0, size)).ok()) << name << " cut to " << size;
    }
    std::string broken = whole;
    for (size_t i = broken.size() / 3; i < broken.size(); i += 3) broken[i] = char(broken[i] ^ 0x5a);
    EXPECT_FALSE(decode(broken).ok()) << name;
  }
}

TEST(Decode, RefusesTooManyPixelsBeforeAllocatingThem) {
  EXPECT_NE(decode(read("rgb.png"), {.pixels_max = 61 * 43 - 1}).error().message.find("found 61 x 43"),
            std::string::npos);
  EXPECT_FALSE(decode(read("420.jpg"), {.side_max = 60}).ok());
  // A header that promises 60000 x 60000.
  std::string bomb = read("rgb.png");
  for (const size_t at : {18, 22}) bomb.replace(at, 2, "\xEA\x60");
  EXPECT_FALSE(decode(bomb).ok());
}

TEST(Resize, EveryFilterIsPillowsBitForBit) {
  const Image from = decoded("rgb.png");
  const std::pair<const char*, Filter> filters[] = {{"nearest", Filter::kNearest},   {"lanczos", Filter::kLanczos},
                                                    {"bilinear", Filter::kBilinear}, {"bicubic", Filter::kBicubic},
                                                    {"box", Filter::kBox},           {"hamming", Filter::kHamming}};
  for (const auto& [name, filter] : filters) {
    for (const auto& [width, height] : {std::pair(17, 13), std::pair(122, 97), std::pair(61, 20)}) {
      const std::string file =
          std::string("expected/") + name + "_" + std::to_string(width) + "x" + std::to_string(height);
      EXPECT_EQ(most_apart(resize(from, width, height, filter), decoded(file + ".png")), 0) << file;
    }
  }
}

TEST(Preprocessor, GivesTheProcessorsPixels) {
  PreprocessorSettings convnext, vit, clip;
  convnext.height = convnext.width = vit.height = vit.width = clip.height = clip.width = 24;
  convnext.shortest_edge = 27;
  convnext.filter = clip.filter = Filter::kBicubic;
  vit.resize_height = vit.resize_width = 24;
  vit.mean = vit.deviation = {0.5, 0.5, 0.5};
  clip.shortest_edge = 24;
  for (const auto& [config, settings] :
       {std::pair("convnext", convnext), std::pair("vit", vit), std::pair("clip", clip)}) {
    const Preprocessor preprocessor(settings);
    for (const char* name : {"rgb", "tall"}) {
      auto pixels = preprocessor.pixels(read(std::string(name) + ".png"));
      ASSERT_TRUE(pixels.ok());
      const std::string expected = read(std::string("expected/") + config + "_" + name + ".f32");
      ASSERT_EQ(pixels->size() * sizeof(float), expected.size());
      for (size_t i = 0; i < pixels->size(); ++i) {
        float value;
        std::memcpy(&value, expected.data() + i * sizeof value, sizeof value);
        ASSERT_NEAR((*pixels)[i], value, 2e-6) << config << " " << name << " at " << i;
      }
    }
  }
}

TEST(Preprocessor, GreyAndSmallerPictures) {
  PreprocessorSettings settings;
  settings.resize = false;
  settings.normalize = false;
  settings.channels = 1;
  settings.height = settings.width = 4;
  const Image white{2, 2, std::vector<uint8_t>(12, 255)};
  EXPECT_EQ(Preprocessor(settings).pixels(white), (std::vector<float>{0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace spillway::image
