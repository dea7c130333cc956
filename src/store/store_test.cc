// Locations, listings and checksums; downloads against a fake store that cuts, lies and comes back; the cache on disk.
#include "store/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "store/digest.h"
#include "store/s3_listing.h"
#include "store/snapshot.h"

namespace spillway::store {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string md5(const std::string& text) {
  Digest digest(Digest::Kind::kMd5);
  digest.update(text);
  return digest.hex();
}

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "spillway-store-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Gives what the test says.
class FakeStore final : public Store {
 public:
  std::map<std::string, std::string> files;
  int cuts = 0;        // so many reads end halfway
  int lies = 0;        // so many reads give other bytes
  int reads_max = -1;  // then the store is gone; -1: never
  int reads = 0;

  std::vector<Object> objects() const {
    std::vector<Object> all;
    for (const auto& [name, text] : files) all.push_back({name, int64_t(text.size()), md5(text)});
    return all;
  }
  Result<std::vector<Object>> list(Connection&) override { return objects(); }
  Status read(Connection&, const Object& object, int64_t first, int64_t size,
              const std::function<bool(std::string_view)>& sink) override {
    std::string piece;
    bool cut = false;
    {
      std::lock_guard lock(mutex_);
      if (reads_max >= 0 && reads >= reads_max) return not_found("gone");
      ++reads;
      piece = files.at(object.name).substr(size_t(first), size_t(size));
      if (cuts > 0 && cuts--) cut = true;
      if (lies > 0 && lies--) piece[0] ^= 1;
    }
    if (!sink(std::string_view(piece).substr(0, cut ? piece.size() / 2 : piece.size())))
      return Error{ErrorCode::kCancelled, "stopped"};
    return cut ? Status(Error{ErrorCode::kUnavailable, "cut off"}) : Status();
  }

 private:
  std::mutex mutex_;
};

std::string noise(size_t size) {
  std::string text(size, '\0');
  uint32_t state = 1;
  for (char& c : text) c = char((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

StoreOptions options() {
  StoreOptions options;
  options.part_bytes = 1000;
  options.connections = 4;
  options.attempts = 3;
  return options;
}

TEST(Location, ReadsWhereModelsLie) {
  const auto s3 = parse_location("s3://models/nlp/bert/");
  ASSERT_TRUE(s3.ok());
  EXPECT_EQ(s3->bucket, "models");
  EXPECT_EQ(s3->prefix, "nlp/bert");
  EXPECT_NE(s3->folder_name("http://a"), s3->folder_name("http://b"));
  EXPECT_EQ(parse_location("https://host/x/")->base, "https://host/x");
  for (const char* wrong :
       {"s3://", "s3://ab", "s3://models/../x", "ftp://host/x", "https://", "https://host/x?y", "https://h st"}) {
    EXPECT_FALSE(parse_location(wrong).ok()) << wrong;
  }
  for (const char* wrong : {"", "/x", "x/", "a//b", "../x", "a/../b", ".git/config", "a\\b"})
    EXPECT_FALSE(is_safe_name(wrong)) << wrong;
  EXPECT_TRUE(is_safe_name("1_Pooling/config.json"));
  EXPECT_EQ(encode_path("a b/\xC3\xA9+.json"), "a%20b/%C3%A9%2B.json");
}

TEST(S3Listing, ReadsAPage) {
  const auto page = parse_s3_listing(contents(SPILLWAY_SOURCE_DIR "/tests/fuzz/s3_listing_fuzz/page.xml"));
  ASSERT_TRUE(page.ok()) << page.error().message;
  ASSERT_EQ(page->objects.size(), 2u);
  EXPECT_EQ(page->objects[0].key, "bert/a&b \xC3\xA9.json");
  EXPECT_EQ(page->objects[0].etag, "70ee1738b6b21e2c8a43f3a5ab0eee71");
  EXPECT_EQ(page->objects[0].size, 11);
  EXPECT_EQ(page->next, "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J&x=");
  EXPECT_FALSE(parse_s3_listing("<html>").ok());
  EXPECT_FALSE(parse_s3_listing("<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents>").ok());
  EXPECT_FALSE(parse_s3_listing("<ListBucketResult><IsTruncated>true</IsTruncated>").ok());
}

TEST(Checksum, KnowsTheETagsOfStores) {
  Folder folder;
  const std::string text = noise(11 << 20), path = folder.path() + "/file";
  std::ofstream(path, std::ios::binary) << text;
  const auto verdict = [&](const std::string& etag) { return check_etag(path, int64_t(text.size()), etag).value(); };
  EXPECT_EQ(verdict(md5(text)), Verdict::kRight);
  EXPECT_EQ(verdict(md5("other")), Verdict::kWrong);
  Digest sha(Digest::Kind::kSha256), parts(Digest::Kind::kMd5);
  sha.update(text);
  EXPECT_EQ(verdict(sha.hex()), Verdict::kRight);
  for (const size_t begin : {0, 8 << 20}) {
    Digest part(Digest::Kind::kMd5);
    part.update(std::string_view(text).substr(begin, 8 << 20));
    parts.update(part.raw());
  }
  EXPECT_EQ(verdict(parts.hex() + "-2"), Verdict::kRight);
  EXPECT_EQ(verdict("opaque"), Verdict::kUnknown);
}

TEST(Download, GoesOnAfterCutsAndFetchesLiesAnew) {
  Folder folder;
  FakeStore store;
  store.files = {{"config.json", "{}"}, {"a/model.safetensors", noise(10'500)}, {"empty.txt", ""}};
  store.cuts = 2;
  store.lies = 1;
  const Status status = download(store, store.objects(), folder.path(), options(), {});
  ASSERT_TRUE(status.ok()) << status.error().message;
  for (const auto& [name, text] : store.files) EXPECT_EQ(contents(folder.path() + "/" + name), text);
  EXPECT_FALSE(fs::exists(folder.path() + "/config.json.journal"));
}

TEST(Download, AStoreThatAlwaysLiesIsFoundOut) {
  Folder folder;
  FakeStore store;
  store.files = {{"model.safetensors", noise(5000)}};
  store.lies = 1000;
  const Status status = download(store, store.objects(), folder.path(), options(), {});
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
  EXPECT_THAT(status.error().message, HasSubstr("expected the checksum"));
  EXPECT_FALSE(fs::exists(folder.path() + "/model.safetensors"));
}

TEST(Download, ResumesWhatAnEarlierRunLeft) {
  Folder folder;
  FakeStore store;
  store.files = {{"model.safetensors", noise(10'000)}};
  store.reads_max = 6;
  StoreOptions one_by_one = options();
  one_by_one.connections = 1;  // with more, reads under way are cut off when another fails, and are asked for again
  EXPECT_FALSE(download(store, store.objects(), folder.path(), one_by_one, {}).ok());
  EXPECT_EQ(store.reads, 6);
  store.reads_max = -1;
  store.reads = 0;
  // A line that was being written when the program was killed.
  std::ofstream(folder.path() + "/model.safetensors.journal", std::ios::app) << "9";
  ASSERT_TRUE(download(store, store.objects(), folder.path(), one_by_one, {}).ok());
  EXPECT_EQ(store.reads, 4);
  EXPECT_EQ(contents(folder.path() + "/model.safetensors"), store.files["model.safetensors"]);
}

TEST(Download, LeftoversOfAnotherFileAreNotUsed) {
  Folder folder;
  FakeStore store;
  store.files = {{"model.safetensors", noise(4000)}};
  store.reads_max = 2;
  EXPECT_FALSE(download(store, store.objects(), folder.path(), options(), {}).ok());
  store.files["model.safetensors"][0] ^= 1;  // the store has a new one
  store.reads_max = -1;
  ASSERT_TRUE(download(store, store.objects(), folder.path(), options(), {}).ok());
  EXPECT_EQ(contents(folder.path() + "/model.safetensors"), store.files["model.safetensors"]);
}

TEST(Snapshots, KeepWhatIsCommonAndOneOldState) {
  Folder folder;
  FakeStore store;
  store.files = {{"config.json", "{}"}, {"model.safetensors", noise(3000)}};
  SnapshotCache cache(folder.path(), "bert");
  EXPECT_FALSE(cache.latest().ok());
  const auto first = cache.fetch(store, store.objects(), options(), {});
  ASSERT_TRUE(first.ok()) << first.error().message;
  store.reads = 0;
  EXPECT_EQ(cache.fetch(store, store.objects(), options(), {}).value(), *first);
  EXPECT_EQ(store.reads, 0);

  store.files["config.json"] = "{\"new\": 1}";
  const auto second = cache.fetch(store, store.objects(), options(), {});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(store.reads, 1) << "the weights are the same";
  EXPECT_EQ(contents(*second + "/model.safetensors"), store.files["model.safetensors"]);
  EXPECT_EQ(contents(*first + "/config.json"), "{}");
  EXPECT_EQ(cache.latest()->folder, *second);

  store.files["config.json"] = "{\"new\": 2}";
  store.reads_max = 0;
  EXPECT_FALSE(cache.fetch(store, store.objects(), options(), {}).ok());
  EXPECT_EQ(cache.latest()->folder, *second) << "a store that fails leaves the last state";
  store.reads_max = -1;
  ASSERT_TRUE(cache.fetch(store, store.objects(), options(), {}).ok());
  EXPECT_FALSE(fs::exists(*first)) << "older states go";
  EXPECT_TRUE(fs::exists(*second));
}

}  // namespace
}  // namespace spillway::store
