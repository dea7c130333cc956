// The readers of GPUs and of the host, against a libnvidia-ml.so and a /proc of the test's own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "metrics/exposition.h"
#include "telemetry/hardware/gpu_metrics.h"
#include "telemetry/hardware/host.h"

namespace spillway::telemetry {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Nvml, AbsentIsAnAnswer) {
  const auto absent = Nvml::load("libno-such-nvml.so.1");
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
  const auto other = Nvml::load("libm.so.6");  // a library, but not NVIDIA's
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.error().message, HasSubstr("expected the function nvml"));
}

TEST(Nvml, ReadsWhatEachCardHas) {
  auto nvml = Nvml::load(FAKE_NVML);
  ASSERT_TRUE(nvml.ok()) << nvml.error().message;
  EXPECT_EQ((*nvml)->driver_version(), "550.1");
  const auto readings = (*nvml)->read();
  ASSERT_EQ(readings.size(), 2U);
  const GpuReading& gpu = readings[0];
  EXPECT_EQ(gpu.uuid, "GPU-0");
  EXPECT_EQ(gpu.name, "Fake H100");
  EXPECT_DOUBLE_EQ(*gpu.utilization_ratio, 0.75);
  EXPECT_DOUBLE_EQ(*gpu.memory_busy_ratio, 0.4);
  EXPECT_EQ(*gpu.memory_used_bytes, double(19ULL << 30));  // without what the driver keeps
  EXPECT_EQ(*readings[1].memory_used_bytes, double(20ULL << 30));
  EXPECT_EQ(*gpu.temperature_celsius, 61);
  EXPECT_DOUBLE_EQ(*gpu.power_watts, 412.5);
  EXPECT_DOUBLE_EQ(*gpu.energy_joules, 9000.123);
  EXPECT_DOUBLE_EQ(*gpu.sm_clock_hertz, 1980e6);
  EXPECT_DOUBLE_EQ(*gpu.memory_clock_hertz, 2619e6);
  EXPECT_EQ(*gpu.throttle_reasons, 0x44U);
  EXPECT_EQ(*gpu.pcie_tx_bytes_per_s, 1000 * 1024);
  EXPECT_EQ(*gpu.pcie_rx_bytes_per_s, 2000 * 1024);
  EXPECT_EQ(*gpu.nvlink_tx_bytes, 5 * 1024);
  EXPECT_EQ(*gpu.nvlink_rx_bytes, 6 * 1024);
  EXPECT_EQ(*gpu.ecc_corrected, 7);
  EXPECT_EQ(*gpu.ecc_uncorrected, 1);
  EXPECT_FALSE(readings[1].power_watts || readings[1].utilization_ratio || readings[1].nvlink_tx_bytes);
  EXPECT_EQ(*readings[1].temperature_celsius, 61);
}

TEST(ReadingBudget, HoldsTheShareAndReadsCostlyKindsRarer) {
  // As an H200's driver: 3.6 ms for energy, 2.9 ms for all the rest, on eight cards, read each second for an hour.
  const std::vector<double> costs_s = {0.0004, 0.0004, 0.0004, 0.0036, 0.0004, 0.0004, 0.0009};
  constexpr double kShare = 0.0007;
  constexpr size_t kGpus = 8;
  ReadingBudget budget(kShare, {1, 1, 1, 0.1, 1, 1, 0.2}, kGpus);
  std::vector<int> taken(costs_s.size());
  double spent_s = 0;
  const TimePoint start = std::chrono::steady_clock::now();
  for (int second = 0; second < 3600; ++second) {
    const TimePoint now = start + std::chrono::seconds(second);
    for (size_t kind = 0; kind < costs_s.size(); ++kind) {
      for (size_t gpu = 0; gpu < kGpus; ++gpu) {
        if (!budget.is_due(kind, gpu, now)) continue;
        budget.note(kind, gpu, now, costs_s[kind]);
        if (second == 0) continue;  // the first of each is what a start costs
        spent_s += costs_s[kind];
        if (gpu == 0) ++taken[kind];
      }
    }
  }
  EXPECT_LE(spent_s / 3600, kShare);
  EXPECT_GE(spent_s / 3600, 0.8 * kShare);  // and uses it
  EXPECT_GT(taken[0], 5 * taken[3]);
  EXPECT_GE(taken[3], 5);
}

TEST(ReadingBudget, CheapCallsAreMadeWheneverAsked) {
  ReadingBudget budget(0.0007, {1, 1}, 1);
  const TimePoint now = std::chrono::steady_clock::now();
  budget.note(0, 0, now, 2e-6);
  budget.note(1, 0, now, 5e-6);
  EXPECT_EQ(budget.period_s(0), 0);
  EXPECT_TRUE(budget.is_due(1, 0, now + std::chrono::milliseconds(100)));
}

TEST(Nvml, WhatIsNotDueIsLeftOut) {
  auto nvml = Nvml::load(FAKE_NVML);
  ASSERT_TRUE(nvml.ok());
  const TimePoint now = std::chrono::steady_clock::now();
  EXPECT_TRUE((*nvml)->read_due(now)[0].power_watts.has_value());
  EXPECT_TRUE((*nvml)->read_due(now + std::chrono::hours(1))[0].energy_joules.has_value());
}

TEST(GpuFaults, AnXidOfACardInUseIsAFault) {
  auto nvml = Nvml::load(FAKE_NVML);
  ASSERT_TRUE(nvml.ok());
  const std::set<uint64_t> applications = {13, 31, 43, 45};
  GpuFaults used({"GPU-0"}, applications), unused({"GPU-1"}, applications), on_cpu({}, applications),
      ignored({"GPU-0"}, {79});
  const std::vector<std::string> uuids = {"GPU-0", "GPU-1"};
  std::vector<GpuFaults*> all = {&used, &unused, &on_cpu, &ignored};
  for (const Nvml::Xid& xid : (*nvml)->take_xids()) {
    for (GpuFaults* faults : all) faults->take(xid.gpu, xid.code, uuids);
  }
  EXPECT_EQ(used.fault(), "GPU 0 (GPU-0) reported XID 79");
  EXPECT_EQ(unused.fault(), "");
  EXPECT_EQ(on_cpu.fault(), "");
  EXPECT_EQ(ignored.fault(), "");
  used.take(0, 48, uuids);
  EXPECT_EQ(used.fault(), "GPU 0 (GPU-0) reported XID 79");  // the first says what began it
}

TEST(GpuFaults, AnApplicationsXidIsNone) {
  GpuFaults faults({"GPU-0"}, {13, 31});
  faults.take(0, 13, {"GPU-0"});
  faults.take(0, 31, {"GPU-0"});
  faults.take(7, 79, {"GPU-0"});  // of no card
  EXPECT_EQ(faults.fault(), "");
  faults.take(0, 95, {"GPU-0"});
  EXPECT_NE(faults.fault(), "");
}

TEST(GpuFaults, APartOfACardMayBeOfAnyCard) {
  GpuFaults part({"GPU-of-a-mig-instance"}, {});
  part.take(1, 79, {"GPU-0", "GPU-1"});
  EXPECT_EQ(part.fault(), "GPU 1 (GPU-1) reported XID 79");
}

TEST(GpuFaults, AreToldByTheReadings) {
  auto nvml = Nvml::load(FAKE_NVML);
  ASSERT_TRUE(nvml.ok());
  GpuFaults faults({"GPU-0"}, {});
  record_gpus(**nvml, false, std::chrono::steady_clock::now(), &faults);
  EXPECT_EQ(faults.fault(), "GPU 0 (GPU-0) reported XID 79");
}

TEST(Nvml, MetricsUnderBothNames) {
  auto nvml = Nvml::load(FAKE_NVML);
  ASSERT_TRUE(nvml.ok());
  record_gpus(**nvml, false, std::chrono::steady_clock::now());
  std::string text = metrics::prometheus_text();
  EXPECT_THAT(text, HasSubstr("spillway_gpu_power_watts{gpu=\"0\"} 412.5\n"));
  EXPECT_THAT(text, HasSubstr("spillway_gpu_throttle{gpu=\"0\",reason=\"power_cap\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("spillway_gpu_throttle{gpu=\"0\",reason=\"idle\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("spillway_gpu_xid_errors_total{gpu=\"0\",xid=\"79\"} 2\n"));
  EXPECT_THAT(text, Not(HasSubstr("spillway_gpu_power_watts{gpu=\"1\"}")));
  EXPECT_THAT(text, Not(HasSubstr("DCGM_FI_DEV_FB_USED")));
  record_gpus(**nvml, true, std::chrono::steady_clock::now() + std::chrono::seconds(60));  // all kinds are due again
  text = metrics::prometheus_text();
  EXPECT_THAT(text,
              HasSubstr("DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-0\",device=\"nvidia0\",modelName=\"Fake H100\""));
  EXPECT_THAT(text, testing::ContainsRegex("DCGM_FI_DEV_FB_USED\\{[^}]*\\} 19456\n"));
  EXPECT_THAT(text, testing::ContainsRegex("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION\\{[^}]*\\} 9000123\n"));
}

class HostTest : public testing::Test {
 protected:
  HostTest() : root_(std::filesystem::temp_directory_path() / ("spillway_host_" + std::to_string(::getpid()))) {}
  ~HostTest() override { std::filesystem::remove_all(root_); }
  void put(const std::string& name, const std::string& text) {
    const auto path = root_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  HostReading read() { return read_host((root_ / "proc").string(), (root_ / "sys").string()); }
  const std::filesystem::path root_;
};

TEST_F(HostTest, ReadsEachFile) {
  const double ticks = double(::sysconf(_SC_CLK_TCK));
  put("proc/stat", "cpu  100 20 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\n");
  put("proc/meminfo",
      "MemTotal:       1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\nHugePages_Total: 0\nSwapTotal: 50 kB\nSwapFree: "
      "20 kB\n");
  put("proc/loadavg", "1.50 2.0 3.0 1/100 12\n");
  put("proc/diskstats",
      " 253 0 vda 1 2 300 4 5 6 700 8 9 1500 11\n 253 1 vda1 1 2 3 4 5 6 7 8 9 10 11\n 7 0 loop0 1 1 1 1 1 1 1 1 1 1 "
      "1\n");
  put("sys/block/vda/size", "1");
  put("proc/net/dev",
      "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 123 5 2 0 0 0 0 0 456 6 3 0 0 0 "
      "0 0\n");
  put("proc/sys/fs/file-nr", "1000 40 9000\n");
  put("proc/pressure/memory",
      "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n");
  const HostReading host = read();
  EXPECT_DOUBLE_EQ(host.cpu_seconds.at("user"), 120 / ticks);
  EXPECT_DOUBLE_EQ(host.cpu_seconds.at("system"), 43 / ticks);
  EXPECT_DOUBLE_EQ(host.cpu_seconds.at("steal"), 8 / ticks);
  EXPECT_EQ(host.cpus, 2);
  EXPECT_EQ(host.memory_total_bytes, 1000 * 1024);
  EXPECT_EQ(host.memory_available_bytes, 600 * 1024);
  EXPECT_EQ(host.memory_swap_used_bytes, 30 * 1024);
  EXPECT_EQ(host.load_1m, 1.5);
  ASSERT_EQ(host.disks.size(), 1U);
  EXPECT_EQ(host.disks.at("vda").read_bytes, 300 * 512);
  EXPECT_EQ(host.disks.at("vda").written_bytes, 700 * 512);
  EXPECT_DOUBLE_EQ(host.disks.at("vda").busy_seconds, 1.5);
  ASSERT_EQ(host.networks.size(), 1U);
  EXPECT_EQ(host.networks.at("eth0").received_bytes, 123);
  EXPECT_EQ(host.networks.at("eth0").sent_bytes, 456);
  EXPECT_EQ(host.networks.at("eth0").sent_errors, 3);
  EXPECT_EQ(host.fds_open, 960);
  EXPECT_EQ(host.fds_max, 9000);
  EXPECT_DOUBLE_EQ(host.pressure_seconds.at("memory some"), 2.5);
  EXPECT_DOUBLE_EQ(host.pressure_seconds.at("memory full"), 1);
}

TEST_F(HostTest, WhatIsMissingOrBrokenIsLeftOut) {
  put("proc/stat", "cpu  100 twenty\n");
  put("proc/net/dev", "eth0: 1 2\n:\n");
  put("proc/diskstats", "nothing here\n");
  const HostReading host = read();
  EXPECT_TRUE(host.cpu_seconds.empty());
  EXPECT_FALSE(host.memory_total_bytes || host.load_1m || host.fds_open);
  EXPECT_TRUE(host.disks.empty() && host.networks.empty() && host.pressure_seconds.empty());
}

TEST(Host, ThisMachineHasProcessorsAndMemory) {
  const HostReading host = read_host();
  EXPECT_GT(host.cpu_seconds.at("idle"), 0);
  EXPECT_GT(*host.memory_total_bytes, 1 << 26);
}

}  // namespace
}  // namespace spillway::telemetry
