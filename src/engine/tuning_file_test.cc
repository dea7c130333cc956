#include "engine/tuning_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace spillway::engine {
namespace {

class TuningFileTest : public testing::Test {
 protected:
  TuningFileTest() : folder_(std::filesystem::temp_directory_path() / ("tuning_" + std::to_string(getpid()))) {}
  ~TuningFileTest() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

TEST_F(TuningFileTest, GivesBackWhatWasLearned) {
  const TuningFile file(folder_, "a", "device 1");
  EXPECT_EQ(file.read(), "");
  file.write("one\ntwo\n");
  EXPECT_EQ(TuningFile(folder_, "a", "device 1").read(), "one\ntwo\n");
  file.write("three\n");
  EXPECT_EQ(file.read(), "three\n");
  EXPECT_EQ(TuningFile(folder_, "b", "device 1").read(), "");
}

TEST_F(TuningFileTest, DeletesWhatAnotherDeviceOrBuildLearned) {
  const TuningFile old(folder_, "a", "device 1 build 1");
  old.write("one\n");
  EXPECT_EQ(TuningFile(folder_, "a", "device 1 build 2").read(), "");
  EXPECT_FALSE(std::filesystem::exists(old.path()));
}

TEST_F(TuningFileTest, DeletesGarbage) {
  const TuningFile file(folder_, "a", "device 1");
  file.write("one\n");
  for (const char* garbage : {"", "x", "spillway tuning 1", "spillway tuning 2\ndevice 1\none\n"}) {
    std::ofstream(file.path(), std::ios::trunc) << garbage;
    EXPECT_EQ(file.read(), "") << garbage;
    EXPECT_FALSE(std::filesystem::exists(file.path())) << garbage;
  }
}

TEST_F(TuningFileTest, KeepsNothingWithoutAFolder) {
  const TuningFile file("", "a", "device 1");
  file.write("one\n");
  EXPECT_EQ(file.read(), "");
}

TEST(BuildIdentity, IsThisProgram) {
  EXPECT_EQ(build_identity(), build_identity());
  EXPECT_NE(build_identity(), "build 0.0");
}

}  // namespace
}  // namespace spillway::engine
