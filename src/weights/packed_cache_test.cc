// The cache folder: who may use which file, who writes, what is evicted.
#include "weights/packed_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace spillway::weights {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Mode = PackedCacheOptions::Mode;

class PackedCacheTest : public testing::Test {
 protected:
  PackedCacheTest() : folder_(fs::temp_directory_path() / ("packed_cache_test_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~PackedCacheTest() override { fs::remove_all(folder_); }

  PackedCache cache(const std::string& model, const std::string& identity = "state 1") const {
    PackedCacheOptions options{.mode = Mode::kOn, .folder = (folder_ / "cache").string(), .bytes_max = bytes_max_};
    return PackedCache(options, (folder_ / model).string(), "bf16", identity);
  }
  Status write(const PackedCache& cache, const StopWriting& stop = {}) const {
    const PackedSource blob{.name = "w", .tag = 0, .bytes = bytes_};
    return cache.write(std::span(&blob, 1), stop);
  }
  std::string read(const PackedCache& cache) {
    const auto file = cache.read(stream_, {});
    return file.ok() ? "accepted" : file.error().message;
  }

  fs::path folder_;
  int64_t bytes_max_ = int64_t{1} << 30;
  std::vector<std::byte> bytes_ = std::vector<std::byte>(3'000'000, std::byte{9});
  tensor::Stream stream_{2};
};

TEST_F(PackedCacheTest, ReadsItsOwnFileOnly) {
  const PackedCache first = cache("a");
  EXPECT_EQ(first.read(stream_, {}).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write(first).ok());
  EXPECT_EQ(read(first), "accepted");
  EXPECT_EQ(cache("b").read(stream_, {}).error().code, ErrorCode::kNotFound);
  EXPECT_THAT(read(cache("a", "state 2")), HasSubstr("another state"));
  EXPECT_EQ(cache("a", "state 2").path(), first.path());  // which replaces the stale one
  EXPECT_EQ(fs::status(folder_ / "cache").permissions(), fs::perms::owner_all);
}

TEST_F(PackedCacheTest, RefusesWhatOthersCanChange) {
  const PackedCache mine = cache("a");
  ASSERT_TRUE(write(mine).ok());
  fs::permissions(mine.path(), fs::perms::group_write, fs::perm_options::add);
  EXPECT_THAT(read(mine), HasSubstr("only its owner may write"));
  fs::permissions(mine.path(), fs::perms::group_write, fs::perm_options::remove);
  fs::permissions(folder_ / "cache", fs::perms::others_write, fs::perm_options::add);
  EXPECT_THAT(read(mine), HasSubstr("only its owner may write"));
  EXPECT_FALSE(write(mine).ok());
  fs::permissions(folder_ / "cache", fs::perms::others_write, fs::perm_options::remove);
  EXPECT_EQ(read(mine), "accepted");
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(mine.path().c_str(), 12345, 0), 0);
    EXPECT_THAT(read(mine), HasSubstr("expected an owner of"));
  }
  const fs::path target = folder_ / "elsewhere";
  fs::rename(mine.path(), target);
  fs::create_symlink(target, mine.path());
  EXPECT_THAT(read(mine), HasSubstr("expected a regular file"));
}

TEST_F(PackedCacheTest, ChecksTheBytesOnceUnlessTheFileChanges) {
  const PackedCache mine = cache("a");
  ASSERT_TRUE(write(mine).ok());
  const auto checked_bytes = [&] {
    int64_t last = 0;
    const auto file = mine.read(stream_, [&](int64_t done, int64_t) { last = std::max(last, done); });
    return file.ok() ? last : -1;
  };
  EXPECT_EQ(checked_bytes(), 3'000'000);
  EXPECT_EQ(checked_bytes(), 0);
  const auto before = fs::last_write_time(mine.path());
  {
    std::fstream file(mine.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(3'000'000);
    file << "damage";
  }
  fs::last_write_time(mine.path(), before);  // which does not hide it
  EXPECT_EQ(checked_bytes(), -1);
  ASSERT_TRUE(write(mine).ok());
  EXPECT_EQ(checked_bytes(), 3'000'000);
}

TEST_F(PackedCacheTest, EvictsTheLeastRecentlyUsed) {
  bytes_max_ = 12'000'000;  // two files of 5 MB
  const PackedCache a = cache("a"), b = cache("b"), c = cache("c");
  ASSERT_TRUE(write(a).ok() && write(b).ok());
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(a.path(), now - std::chrono::hours(2));
  fs::last_write_time(b.path(), now - std::chrono::hours(1));
  const auto used = a.read(stream_, {});  // now b is the older one, and a stays mapped
  ASSERT_TRUE(write(c).ok());
  EXPECT_TRUE(fs::exists(a.path()));
  EXPECT_FALSE(fs::exists(b.path()));
  EXPECT_EQ(cache_use((folder_ / "cache").string()).files, 2);
  bytes_max_ = 6'000'000;
  ASSERT_TRUE(write(cache("d")).ok());
  EXPECT_EQ(cache_use((folder_ / "cache").string()).files, 1);
  EXPECT_TRUE(used->verify(stream_, {}).ok());  // evicted, and still whole for who has it
}

TEST_F(PackedCacheTest, WritesNothingBeyondItsBound) {
  ASSERT_TRUE(write(cache("a")).ok());
  bytes_max_ = 1'000'000;
  const Status status = write(cache("b"));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(read(cache("a")), "accepted");  // nothing is evicted for what cannot be kept
}

TEST_F(PackedCacheTest, LeavesAShareOfTheDiskFree) {
  bytes_max_ = int64_t{1} << 46;
  const size_t size = fs::space(folder_).available + (size_t{1} << 30);  // never read
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(data, MAP_FAILED);
  const PackedSource blob{.name = "w", .tag = 0, .bytes = {static_cast<const std::byte*>(data), size}};
  const Status status = cache("a").write(std::span(&blob, 1), {});
  ::munmap(data, size);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(status.error().message, HasSubstr("less than 10%"));
  EXPECT_EQ(cache_use((folder_ / "cache").string()).files, 0);
}

TEST_F(PackedCacheTest, OneWriterAtATimeAndTheDeadLeaveNothing) {
  const PackedCache mine = cache("a");
  Status inner;
  ASSERT_TRUE(write(mine, [&] {
                inner = write(mine);
                return false;
              }).ok());
  ASSERT_FALSE(inner.ok());
  EXPECT_EQ(inner.error().code, ErrorCode::kCancelled);
  std::ofstream(mine.path() + kUnfinished + "abc123") << "half";
  ASSERT_TRUE(write(cache("b")).ok());
  EXPECT_FALSE(fs::exists(mine.path() + kUnfinished + "abc123"));
}

TEST_F(PackedCacheTest, ProcessesThatStartTogetherAllRead) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      tensor::Stream stream(1);
      const PackedCache mine = cache("a");
      for (int round = 0; round < 10; ++round) {
        if (!mine.read(stream, {}).ok()) (void)write(mine);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(read(cache("a")), "accepted");
}

TEST(CacheFolder, FollowsTheEnvironment) {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const std::string before = xdg ? xdg : "";
  ::setenv("XDG_CACHE_HOME", "/somewhere", 1);
  EXPECT_EQ(default_cache_folder(), "/somewhere/spillway");
  ::setenv("XDG_CACHE_HOME", "relative", 1);  // the specification says to ignore those
  EXPECT_THAT(default_cache_folder(), testing::Not(HasSubstr("relative")));
  xdg ? ::setenv("XDG_CACHE_HOME", before.c_str(), 1) : ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace spillway::weights
