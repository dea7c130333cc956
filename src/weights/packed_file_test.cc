// Packed files: what was written is read; anything else is refused.
#include "weights/packed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "weights/checksum.h"
#include "weights/packed_writer.h"

namespace spillway::weights {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::vector<std::byte> some_bytes(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = std::byte((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 56);
  return bytes;
}

class PackedFileTest : public testing::Test {
 protected:
  PackedFileTest() : folder_(fs::temp_directory_path() / ("packed_file_test_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
    path_ = (folder_ / "a.packed").string();
  }
  ~PackedFileTest() override { fs::remove_all(folder_); }

  Status write(const StopWriting& stop = {}) {
    const PackedSource blobs[] = {{.name = "small", .tag = 7, .bytes = small_},
                                  {.name = "large", .tag = 1, .bytes = large_},
                                  {.name = "none", .tag = 2, .bytes = {}},
                                  {.name = "last", .tag = 3, .bytes = last_}};
    return write_packed_file(path_, "of this", blobs, stop);
  }

  Status read() {
    SW_ASSIGN(const PackedFile file, PackedFile::open(path_));
    SW_TRY(file.verify(stream_, {}));
    const auto same = [&](const char* name, const std::vector<std::byte>& expected, uint64_t tag) {
      const PackedBlob blob = file.find(name);
      return blob.tag == tag && std::equal(blob.bytes.begin(), blob.bytes.end(), expected.begin(), expected.end());
    };
    EXPECT_TRUE(same("small", small_, 7) && same("large", large_, 1) && same("last", last_, 3));
    EXPECT_EQ(file.find("none").tag, 2u);
    EXPECT_TRUE(file.find("else").bytes.empty());
    EXPECT_EQ(file.identity(), "of this");
    return {};
  }

  std::string error() {
    const Status status = read();
    return status.ok() ? "accepted" : status.error().message;
  }

  void flip(int64_t at) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char byte = char(file.get() ^ 16);
    file.seekp(at);
    file.put(byte);
  }

  size_t files() const { return size_t(std::distance(fs::directory_iterator(folder_), fs::directory_iterator())); }

  fs::path folder_;
  std::string path_;
  std::vector<std::byte> small_ = some_bytes(100, 1), large_ = some_bytes(9'000'001, 2), last_ = some_bytes(64, 3);
  tensor::Stream stream_{2};
};

TEST_F(PackedFileTest, GivesWhatWasWritten) {
  ASSERT_TRUE(write().ok());
  EXPECT_EQ(error(), "accepted");
  ASSERT_TRUE(write().ok());  // over itself
  EXPECT_EQ(error(), "accepted");
  EXPECT_EQ(files(), 1u);
}

TEST_F(PackedFileTest, CountsTheBytesItReads) {
  ASSERT_TRUE(write().ok());
  const auto file = PackedFile::open(path_);
  int64_t last = 0, total = 0;
  ASSERT_TRUE(file->verify(stream_, [&](int64_t done, int64_t of) { last = std::max(last, done), total = of; }).ok());
  EXPECT_EQ(last, total);
  EXPECT_GT(total, 9'000'000);
}

TEST_F(PackedFileTest, RefusesCutFiles) {
  ASSERT_TRUE(write().ok());
  const auto size = fs::file_size(path_);
  for (const uintmax_t to : {size - 1, size - 5'000'000, uintmax_t{3} << 20, uintmax_t{100}, uintmax_t{10}}) {
    fs::resize_file(path_, to);
    EXPECT_NE(error(), "accepted") << to;
  }
  fs::resize_file(path_, size);  // the right size again, but zeros
  EXPECT_NE(error(), "accepted");
  fs::resize_file(path_, 0);
  EXPECT_THAT(error(), HasSubstr("the file is empty"));
}

TEST_F(PackedFileTest, RefusesAChangedByteAnywhereThatCounts) {
  ASSERT_TRUE(write().ok());
  const auto size = int64_t(fs::file_size(path_));
  for (const int64_t at : {int64_t{0}, int64_t{8}, int64_t{16}, int64_t{57}, int64_t{70}, int64_t{120},
                           int64_t{2} << 20, int64_t{6'400'000}, size - 1}) {
    flip(at);
    EXPECT_NE(error(), "accepted") << at;
    flip(at);
  }
  EXPECT_EQ(error(), "accepted");
}

TEST_F(PackedFileTest, LeavesNothingWhenStopped) {
  int blocks = 0;
  const Status status = write([&] { return ++blocks == 2; });
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(files(), 0u);
}

TEST_F(PackedFileTest, LeavesTheOldFileWhenTheDiskIsFull) {
  ASSERT_TRUE(write().ok());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit low{.rlim_cur = 4 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
  const Status status = write();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted) << status.error().message;
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(error(), "accepted");
}

TEST_F(PackedFileTest, AKilledWriterLeavesNoFileOfTheName) {
  const pid_t child = ::fork();
  if (child == 0) {
    int blocks = 0;
    (void)write([&] {
      if (++blocks == 2) ::raise(SIGKILL);
      return false;
    });
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_EQ(files(), 1u);  // the unfinished one, which the next writer of the folder removes (packed_cache_test)
}

TEST(PackedHead, RefusesTablesThatLie) {
  const PackedHead good = plan_packed_file("id", {{"a", 0, 0, 100}, {"b", 0, 0, 200}});
  const auto error = [&](auto change) {
    PackedHead head = good;
    change(head);
    const auto bytes = encode_packed_head(head);
    const auto parsed = parse_packed_head(bytes, head.file_bytes);
    return parsed.ok() ? std::string("accepted") : parsed.error().message;
  };
  EXPECT_EQ(error([](PackedHead&) {}), "accepted");
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].bytes = 201; }), HasSubstr("expected bytes within"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].bytes = ~uint64_t{0}; }), HasSubstr("expected bytes within"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[0].begin -= 64; }), HasSubstr("expected bytes within"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].begin = h.entries[0].begin; }),
              HasSubstr("expected bytes within"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].begin += 1; }), HasSubstr("expected bytes within"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].name = "a"; }), HasSubstr("a name of its own"));
  EXPECT_THAT(error([](PackedHead& h) { h.entries[1].name = ""; }), HasSubstr("a name of its own"));
  EXPECT_THAT(error([](PackedHead& h) { h.block_sums.push_back(1); }), HasSubstr("do not fill"));
  EXPECT_THAT(error([](PackedHead& h) { h.block_sums.pop_back(); }), HasSubstr("do not fill"));
}

TEST(Checksum, TellsOrderLengthAndZerosApart) {
  const auto bytes = some_bytes(1000, 5);
  const uint64_t sum = checksum(bytes);
  for (const size_t at : {size_t{0}, size_t{511}, size_t{999}}) {
    auto changed = bytes;
    changed[at] ^= std::byte{1};
    EXPECT_NE(checksum(changed), sum);
  }
  auto swapped = bytes;
  std::swap_ranges(swapped.begin(), swapped.begin() + 128, swapped.begin() + 128);
  EXPECT_NE(checksum(swapped), sum);
  EXPECT_NE(checksum(std::span(bytes).first(999)), sum);
  const std::vector<std::byte> zeros(256);
  EXPECT_NE(checksum(zeros), checksum(std::span(zeros).first(255)));
}

}  // namespace
}  // namespace spillway::weights
