#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "weights/safetensors_header.h"
#include "weights/weight_scope.h"
#include "weights/weight_source.h"

namespace spillway::weights {
namespace {

using testing::HasSubstr;

// A file of that header and so many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file + header + std::string(data_bytes, '\0');
}

Result<std::vector<HeaderEntry>> parse(const std::string& file) {
  return parse_header({reinterpret_cast<const std::byte*>(file.data()), file.size()}, file.size());
}

std::string error_of(const std::string& header, size_t data_bytes) {
  const auto entries = parse(file_of(header, data_bytes));
  return entries.ok() ? "accepted" : entries.error().message;
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("weights_test_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return (path_ / name).string();
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(SafetensorsHeader, ReadsNamesTypesShapesAndRanges) {
  const auto entries =
      parse(file_of(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                    R"("b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}   )",
                    16));
  ASSERT_TRUE(entries.ok()) << entries.error().message;
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].dtype, tensor::DType::kBF16);
  EXPECT_EQ((*entries)[0].shape, (tensor::Shape{2, 3}));
  EXPECT_EQ((*entries)[1].end - (*entries)[1].begin, 4u);
}

TEST(SafetensorsHeader, RefusesWhatDoesNotFit) {
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4),
              HasSubstr("outside the 4 bytes"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4), HasSubstr("expected 8 bytes"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})", 8), HasSubstr("outside"));
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
          8),
      HasSubstr("overlap"));
  EXPECT_THAT(
      error_of(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2),
      HasSubstr("duplicate name 'a'"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F8_E9","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("F8_E9"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", 0),
              HasSubstr("overflows"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4), HasSubstr("below 0"));
  EXPECT_THAT(error_of(R"({"a":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("expected dtype, shape and data_offsets"));
  EXPECT_THAT(error_of(R"({"a":[1]})", 4), HasSubstr("unexpected array"));
  EXPECT_THAT(error_of(R"([1])", 4), HasSubstr("unexpected array"));
  EXPECT_THAT(error_of(R"({"a":)", 4), HasSubstr("header"));
  EXPECT_THAT(error_of(R"({} x)", 0), HasSubstr("header"));
}

TEST(SafetensorsHeader, RefusesALengthBeyondTheFile) {
  std::string file = file_of("{}", 0);
  const uint64_t length = 1'000'000;
  std::memcpy(file.data(), &length, sizeof(length));
  EXPECT_THAT(parse(file).error().message, HasSubstr("the header says 1000000 bytes"));
  const uint64_t huge = uint64_t(-1);
  std::memcpy(file.data(), &huge, sizeof(huge));
  EXPECT_THAT(parse(file).error().message, HasSubstr("at most"));
  EXPECT_FALSE(parse("abc").ok());
}

TEST(WeightScope, NamesExpectedAndFound) {
  const auto source = open_safetensors(SPILLWAY_SOURCE_DIR "/tests/golden/llama/model.safetensors");
  ASSERT_TRUE(source.ok()) << source.error().message;
  const WeightScope scope = WeightScope(**source).scope("model.layers", 1).scope("self_attn");
  EXPECT_TRUE(scope.contains("q_proj.weight"));
  EXPECT_TRUE(scope.tensor("q_proj.weight", {128, 128}).ok());
  EXPECT_EQ(scope.tensor("q_proj.weight", {128, 64}).error().message,
            "tensor 'model.layers.1.self_attn.q_proj.weight': expected shape [128, 64], found [128, 128]");
  const tensor::DType only_bf16[] = {tensor::DType::kBF16};
  EXPECT_EQ(scope.tensor("q_proj.weight", {128, 128}, only_bf16).error().message,
            "tensor 'model.layers.1.self_attn.q_proj.weight': expected type bf16, found f32");
  EXPECT_EQ(scope.tensor("z_proj.weight", {1}).error().message,
            "tensor 'model.layers.1.self_attn.z_proj.weight' is not in the checkpoint");
}

TEST(Checkpoint, OpensShardsByTheirIndex) {
  const auto source = open_checkpoint(SPILLWAY_SOURCE_DIR "/tests/golden/deepseek_v3_fp8");
  ASSERT_TRUE(source.ok()) << source.error().message;
  EXPECT_TRUE((*source)->contains("lm_head.weight"));
  EXPECT_TRUE((*source)->contains("model.layers.2.mlp.shared_experts.up_proj.weight_scale_inv"));
}

TEST(Checkpoint, RefusesABadIndex) {
  const Folder folder;
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("found neither"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"../secret.safetensors"}})");
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("expected a plain file name"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("one.safetensors"));
  folder.write("one.safetensors", file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("'a' is in no shard"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"b":"one.safetensors","c":"two.safetensors"}})");
  folder.write("two.safetensors", file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1));
  EXPECT_THAT(open_checkpoint(folder.path()).error().message, HasSubstr("in two shards"));
}

TEST(Checkpoint, ReportsProgressAsTensorsAreDropped) {
  auto source = open_safetensors(SPILLWAY_SOURCE_DIR "/tests/golden/llama/model.safetensors");
  ASSERT_TRUE(source.ok());
  int64_t done = 0, total = 0;
  (*source)->set_progress([&](int64_t d, int64_t t) {
    done = d;
    total = t;
  });
  { const auto norm = WeightScope(**source).tensor("model.norm.weight", {128}); }
  EXPECT_EQ(done, 512);
  EXPECT_EQ(total, (*source)->bytes_total());
}

TEST(Checkpoint, IdentityTellsContentsApart) {
  const Folder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}})";
  std::string bytes = file_of(header, 100000);
  const auto identity = [&] {
    const std::string path = folder.write("model.safetensors", bytes);
    std::filesystem::last_write_time(path, std::filesystem::file_time_type{});  // as an archive would set it
    const auto source = open_checkpoint(folder.path());
    return source.ok() ? (*source)->identity() : source.error().message;
  };
  const std::string before = identity();
  EXPECT_THAT(before, HasSubstr("model.safetensors"));
  EXPECT_EQ(identity(), before);
  std::fill(bytes.end() - 1000, bytes.end(), 'x');
  EXPECT_NE(identity(), before);
}

// Resident bytes of this process's mappings of the file.
int64_t resident_of(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  int64_t kib = 0;
  bool inside = false;
  while (std::getline(maps, line)) {
    const bool range = line.find("kB") == std::string::npos && line.find("VmFlags") == std::string::npos;
    if (range) inside = line.ends_with(path);
    if (inside && line.starts_with("Rss:")) kib += std::stoll(line.substr(4));
  }
  return kib * 1024;
}

// A checkpoint of one tensor "a", [4096, 1024] of float32. Returns its file.
std::string write_table(const Folder& folder) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[4096,1024],"data_offsets":[0,16777216]}})";
  return folder.write("model.safetensors", file_of(header, 16 << 20));
}

TEST(Checkpoint, GivesBackThePagesOfATableThatIsReadByRows) {
  const Folder folder;
  const std::string path = write_table(folder);
  const auto source = open_checkpoint(folder.path());
  ASSERT_TRUE(source.ok());
  auto stored = WeightScope(**source).tensor("a", {4096, 1024});
  ASSERT_TRUE(stored.ok());
  stored->keep();
  const auto read_row = [&](int64_t row) { return *const_cast<volatile std::byte*>(stored->view().data + row * 4096); };
  for (int64_t row = 0; row < 4096; row += 300) read_row(row);
  stored->read_places(StoredTensor::kPlacesMax - 1);
  EXPECT_GE(resident_of(path), 14 * 4096);
  stored->read_places(1);
  EXPECT_LE(resident_of(path), 2 * 4096);  // the pages at its ends
  for (int64_t row = 0; row < 4096; row += 300) read_row(row);
  (*source)->expect_few();
  EXPECT_EQ(resident_of(path), 0);
  EXPECT_EQ(read_row(5), std::byte{0});
}

TEST(Checkpoint, TakenTensorsStayUntilAllHaveGivenThemBack) {
  const Folder folder;
  const std::string path = write_table(folder);
  const auto source = open_checkpoint(folder.path());
  ASSERT_TRUE(source.ok());
  EXPECT_TRUE((*source)->settled());
  tensor::TensorView view;
  {
    const auto stored = WeightScope(**source).tensor("a", {4096, 1024});
    ASSERT_TRUE(stored.ok());
    view = stored->view();
    EXPECT_TRUE((*source)->take(view));
    EXPECT_TRUE((*source)->take(view));  // two who share it
    for (int64_t i = 0; i < 16 << 20; i += 4096) *const_cast<volatile std::byte*>(view.data + i);
  }
  EXPECT_EQ((*source)->mapped_bytes(), 16 << 20);
  EXPECT_FALSE((*source)->settled());
  (*source)->expect_few();  // not of what is taken
  EXPECT_GE(resident_of(path), 16 << 20);
  (*source)->give_back(view);
  EXPECT_GE(resident_of(path), 16 << 20);
  (*source)->give_back(view);
  EXPECT_TRUE((*source)->settled());
  EXPECT_EQ(resident_of(path), 0);

  const auto random = random_weights({});
  const auto made = random->open("w", {4, 4}, kMatrixTypes);
  ASSERT_TRUE(made.ok());
  EXPECT_FALSE(random->take(made->view()));  // not a file's
}

TEST(Checkpoint, SmallFloatsAreUsedInPlaceAndLocated) {
  const Folder folder;
  const std::string header = R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
                             R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}}      )";
  folder.write("model.safetensors", file_of(header + std::string((8 - header.size() % 8) % 8, ' '), 24));
  const auto source = open_checkpoint(folder.path());
  ASSERT_TRUE(source.ok()) << source.error().message;
  const auto a = WeightScope(**source).f32("a", {4}), b = WeightScope(**source).f32("b", {4});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_TRUE((*source)->locate(a->view().data).has_value());
  EXPECT_NE((*source)->locate(a->view().data), (*source)->locate(a->view().data + 4));
  EXPECT_FALSE((*source)->locate(b->view().data).has_value());
}

TEST(RandomWeights, AreTheSameForTheSameSeedAndHaveTheAskedForm) {
  const auto a = random_weights({.dtype = tensor::DType::kBF16, .fp8_blocks = true, .seed = 7});
  const auto b = random_weights({.dtype = tensor::DType::kBF16, .fp8_blocks = true, .seed = 7});
  const auto first = a->open("model.layers.0.mlp.up_proj.weight", {256, 128}, kMatrixTypes);
  const auto second = b->open("model.layers.0.mlp.up_proj.weight", {256, 128}, kMatrixTypes);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->view().dtype, tensor::DType::kF8E4M3);
  EXPECT_EQ(std::memcmp(first->view().data, second->view().data, first->view().bytes()), 0);
  EXPECT_TRUE(a->contains("model.layers.0.mlp.up_proj.weight_scale_inv"));
  EXPECT_FALSE(a->contains("lm_head.weight_scale_inv"));
  EXPECT_EQ(a->open("lm_head.weight", {64, 128}, kMatrixTypes)->view().dtype, tensor::DType::kBF16);
}

}  // namespace
}  // namespace spillway::weights
