// The spool under what disks and processes do: torn ends, damage, bounds, a full disk, death while writing.
#include "telemetry/outlets/spool.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace spillway::telemetry {
namespace {

namespace fs = std::filesystem;

class SpoolTest : public testing::Test {
 protected:
  SpoolTest() {
    static int number = 0;
    options_.folder =
        (fs::temp_directory_path() / ("spillway_spool_" + std::to_string(::getpid()) + "_" + std::to_string(++number)))
            .string();
  }
  ~SpoolTest() override { fs::remove_all(options_.folder); }

  std::unique_ptr<Spool> open() {
    auto spool = Spool::open(options_, {"a"});
    EXPECT_TRUE(spool.ok()) << (spool.ok() ? "" : spool.error().message);
    return spool.ok() ? std::move(spool).value() : nullptr;
  }

  // Everything that reader a has not read.
  static std::vector<std::string> drain(Spool& spool) {
    std::vector<std::string> all;
    for (;;) {
      auto record = spool.peek("a");
      EXPECT_TRUE(record.ok());
      if (!record.ok() || !record->has_value()) return all;
      all.push_back((*record)->payload);
      EXPECT_TRUE(spool.advance("a", (*record)->next).ok());
    }
  }

  std::vector<fs::path> segments() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(options_.folder)) {
      if (entry.path().extension() == ".spool") all.push_back(entry.path());
    }
    std::ranges::sort(all);
    return all;
  }

  SpoolOptions options_;
};

std::string record(int i) { return "record " + std::to_string(i) + std::string(size_t(i % 50), '.'); }

TEST_F(SpoolTest, KeepsOrderOverSegmentsAndProcesses) {
  options_.segment_bytes = 300;
  std::vector<std::string> expected;
  auto spool = open();
  for (int i = 0; i < 100; ++i) {
    expected.push_back(record(i));
    ASSERT_TRUE(spool->append(expected.back()).ok());
    if (i == 40) spool = nullptr, spool = open();
  }
  EXPECT_GT(segments().size(), 10U);
  EXPECT_EQ(drain(*spool), expected);
  EXPECT_EQ(segments().size(), 1U);  // what all have read is gone, but for the one being written
  EXPECT_EQ(spool->damaged(), 0U);
}

TEST_F(SpoolTest, ACursorSurvivesAndNothingComesTwice) {
  auto spool = open();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(spool->append(record(i)).ok());
  auto first = spool->peek("a");
  ASSERT_TRUE(spool->advance("a", (*first)->next).ok());
  spool = nullptr;
  spool = open();
  EXPECT_THAT(drain(*spool), testing::ElementsAre(record(1), record(2)));
  spool = nullptr;
  spool = open();
  ASSERT_TRUE(spool->append(record(3)).ok());
  EXPECT_THAT(drain(*spool), testing::ElementsAre(record(3)));
}

TEST_F(SpoolTest, ATornEndIsCutOff) {
  for (const size_t cut : {1, 5, 9, 12}) {
    auto spool = open();
    ASSERT_TRUE(spool->append("whole").ok());
    ASSERT_TRUE(spool->append("torn in the middle").ok());
    spool = nullptr;
    const fs::path last = segments().back();
    fs::resize_file(last, fs::file_size(last) - cut);
    spool = open();
    ASSERT_TRUE(spool->append("after").ok());
    EXPECT_THAT(drain(*spool), testing::ElementsAre("whole", "after")) << cut;
    EXPECT_EQ(spool->damaged(), 1U);
  }
}

TEST_F(SpoolTest, DamageCostsItsSegmentAlone) {
  options_.segment_bytes = 64;
  auto spool = open();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(spool->append(std::string(40, char('a' + i))).ok());
  {
    std::fstream file(segments()[1], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20);
    file << "X";
  }
  EXPECT_THAT(drain(*spool), testing::ElementsAre(std::string(40, 'a'), std::string(40, 'c'), std::string(40, 'd')));
  EXPECT_EQ(spool->damaged(), 1U);
}

TEST_F(SpoolTest, TheBoundDropsTheOldest) {
  options_.segment_bytes = 1000;
  options_.bytes_max = 5000;
  auto spool = open();
  std::vector<std::string> expected;
  for (int i = 0; i < 300; ++i) {
    expected.push_back(record(1000 + i));
    ASSERT_TRUE(spool->append(expected.back()).ok());
    ASSERT_LE(spool->bytes(), options_.bytes_max);
  }
  EXPECT_GT(spool->bytes(), options_.bytes_max - 2 * options_.segment_bytes);
  const uint64_t dropped = spool->bytes_dropped();
  const std::vector<std::string> kept = drain(*spool);
  ASSERT_FALSE(kept.empty());
  EXPECT_TRUE(std::equal(kept.rbegin(), kept.rend(), expected.rbegin()));
  uint64_t missing = 0;
  for (size_t i = 0; i < expected.size() - kept.size(); ++i) missing += 8 + expected[i].size();
  EXPECT_EQ(dropped, missing);
}

TEST_F(SpoolTest, AFullDiskRefusesAndHarmsNothing) {
  auto spool = open();
  ASSERT_TRUE(spool->append(std::string(1000, 'a')).ok());
  // A file that may not grow fails in the middle of a write, as a full disk does.
  const auto before = ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const rlimit tight{1500, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status refused = spool->append(std::string(1000, 'b'));
  const Status small = spool->append(std::string(100, 'c'));
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, before);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(small.ok());
  ASSERT_TRUE(spool->append("room again").ok());
  EXPECT_THAT(drain(*spool), testing::ElementsAre(std::string(1000, 'a'), std::string(100, 'c'), "room again"));
}

TEST_F(SpoolTest, DeathInTheMiddleLosesNothingThatWasAppended) {
  for (int round = 0; round < 3; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ::fcntl(ends[1], F_SETPIPE_SZ, 4096);  // it runs ahead of the reader by this only
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto spool = Spool::open(options_, {"a"});
      for (int i = 0; spool.ok(); ++i) {
        if (!(*spool)->append(record(i)).ok()) break;
        if (::write(ends[1], &i, sizeof i) != sizeof i) break;  // now it is promised
      }
      ::_exit(1);
    }
    int last = -1;
    for (int i = 0; i < 200 * (round + 1); ++i) ASSERT_EQ(::read(ends[0], &last, sizeof last), ssize_t(sizeof last));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(ends[1]);
    while (::read(ends[0], &last, sizeof last) == ssize_t(sizeof last)) continue;
    ::close(ends[0]);
    auto spool = open();
    const std::vector<std::string> read = drain(*spool);
    ASSERT_GE(int(read.size()), last + 1);
    for (size_t i = 0; i < read.size(); ++i) ASSERT_EQ(read[i], record(int(i)));
  }
}

TEST_F(SpoolTest, ForcesToTheDiskWhenAsked) {
  for (const auto sync : {SpoolOptions::Sync::kInterval, SpoolOptions::Sync::kAlways}) {
    options_.sync = sync;
    auto spool = open();
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(spool->append(record(i)).ok());
    EXPECT_EQ(drain(*spool).size(), 3U);
  }
}

TEST_F(SpoolTest, ReplayReadsAllAndMovesNoCursor) {
  options_.segment_bytes = 64;
  auto spool = open();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(spool->append(record(i)).ok());
  int read = 0;
  ASSERT_TRUE(spool->replay([&](std::string_view payload) { EXPECT_EQ(payload, record(read++)); }).ok());
  EXPECT_EQ(read, 5);
  EXPECT_EQ(drain(*spool).size(), 5U);
}

TEST_F(SpoolTest, OneProcessAFolder) {
  const auto spool = open();
  const auto second = Spool::open(options_, {"a"});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, testing::HasSubstr("found it in use"));
}

TEST_F(SpoolTest, EachReaderHasItsOwnPace) {
  options_.segment_bytes = 64;
  auto spool = Spool::open(options_, {"a", "b"});
  ASSERT_TRUE(spool.ok());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE((*spool)->append(std::string(40, char('a' + i))).ok());
  EXPECT_EQ(drain(**spool).size(), 5U);
  EXPECT_EQ(segments().size(), 5U);
  for (int i = 0; i < 5; ++i) {
    auto next = (*spool)->peek("b");
    EXPECT_EQ((*next)->payload, std::string(40, char('a' + i)));
    ASSERT_TRUE((*spool)->advance("b", (*next)->next).ok());
  }
  EXPECT_EQ(segments().size(), 1U);
}

}  // namespace
}  // namespace spillway::telemetry
