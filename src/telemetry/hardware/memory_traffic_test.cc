// The counters of memory traffic, against a /sys of the test's own.
#include "telemetry/hardware/memory_traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace spillway::telemetry {
namespace {

using testing::HasSubstr;

class MemoryTrafficTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("memory_traffic." + std::to_string(::getpid()));
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }

  void write_controller(const std::string& name) {
    const std::string folder = "bus/event_source/devices/" + name + "/";
    write(folder + "type", "14");
    write(folder + "cpumask", "0,28");
    write(folder + "format/event", "config:0-7");
    write(folder + "format/umask", "config:8-15");
    for (const std::string event : {"cas_count_read", "cas_count_write"}) {
      write(folder + "events/" + event, event == "cas_count_read" ? "event=0x04,umask=0x03" : "event=0x04,umask=0x0c");
      write(folder + "events/" + event + ".scale", "6.103515625e-5");
      write(folder + "events/" + event + ".unit", "MiB");
    }
  }

  // A descriptor that reads as a counter does.
  static int counter(uint64_t value) {
    int ends[2];
    if (::pipe(ends) != 0) return -1;
    for (int i = 0; i < 4; ++i) EXPECT_EQ(::write(ends[1], &value, sizeof value), ssize_t(sizeof value));
    ::close(ends[1]);
    return ends[0];
  }

  std::filesystem::path root_;
};

TEST_F(MemoryTrafficTest, AbsentIsSaidAndIsNoZero) {
  const MemoryTraffic none = MemoryTraffic::find(root_.string());
  EXPECT_EQ(none.source(), "none");
  EXPECT_THAT(none.why(), HasSubstr("no mbm_total_bytes"));
  EXPECT_THAT(none.why(), HasSubstr("no uncore_imc"));
  const MemoryTrafficReading reading = none.read();
  EXPECT_FALSE(reading.total_bytes || reading.read_bytes || reading.written_bytes);
}

TEST_F(MemoryTrafficTest, ResctrlIsSummedOverCaches) {
  write("fs/resctrl/mon_data/mon_L3_00/mbm_total_bytes", "1000");
  write("fs/resctrl/mon_data/mon_L3_01/mbm_total_bytes", "234");
  const MemoryTraffic found = MemoryTraffic::find(root_.string());
  EXPECT_EQ(found.source(), "resctrl");
  EXPECT_EQ(found.read().total_bytes, 1234);
  write("fs/resctrl/mon_data/mon_L3_01/mbm_total_bytes", "Unavailable");
  EXPECT_EQ(MemoryTraffic::find(root_.string()).read().total_bytes, 1000);
}

TEST_F(MemoryTrafficTest, ControllersAreSummedInBytes) {
  write_controller("uncore_imc_0");
  write_controller("uncore_imc_1");
  std::vector<std::tuple<uint32_t, uint64_t, int>> opened;
  const MemoryTraffic found = MemoryTraffic::find(root_.string(), [&](uint32_t type, uint64_t config, int cpu) {
    opened.emplace_back(type, config, cpu);
    return counter(config == 0x304 ? 10 : 3);
  });
  EXPECT_EQ(found.source(), "uncore_imc");
  EXPECT_EQ(opened.size(), 8u);  // two controllers, read and write, two processors
  EXPECT_THAT(opened, testing::Contains(std::tuple(14u, 0xc04u, 28)));
  const MemoryTrafficReading reading = found.read();
  EXPECT_DOUBLE_EQ(*reading.read_bytes, 4 * 10 * 64);
  EXPECT_DOUBLE_EQ(*reading.written_bytes, 4 * 3 * 64);
  EXPECT_FALSE(reading.total_bytes);
}

TEST_F(MemoryTrafficTest, WithoutTheRightNothingIsSummed) {
  write_controller("uncore_imc_0");
  write_controller("uncore_imc_1");
  int opened = 0;
  const MemoryTraffic refused = MemoryTraffic::find(root_.string(), [&](uint32_t, uint64_t, int) {
    if (++opened < 6) return counter(1);
    errno = EACCES;
    return -1;
  });
  EXPECT_EQ(refused.source(), "none");
  EXPECT_THAT(refused.why(), HasSubstr("Permission denied"));
  EXPECT_FALSE(refused.read().read_bytes);
  for (const std::string controller : {"uncore_imc_0", "uncore_imc_1"}) {
    write("bus/event_source/devices/" + controller + "/events/cas_count_read.unit", "Joules");
  }
  EXPECT_THAT(MemoryTraffic::find(root_.string()).why(), HasSubstr("expected an event with a scale in MiB"));
}

}  // namespace
}  // namespace spillway::telemetry
