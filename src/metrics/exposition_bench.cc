// A scrape of 100,000 series: how long it takes and how much memory it needs, in each format.
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "metrics/exposition.h"
#include "metrics/metrics.h"

namespace spillway::metrics {
namespace {

// The most memory that was resident since the last call.
double peak_mib() {
  std::ifstream in("/proc/self/status");
  for (std::string word; in >> word;) {
    if (word != "VmHWM:") continue;
    double kib = 0;
    in >> kib;
    return kib / 1024;
  }
  return 0;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

void measure(const char* what, Format format) {
  ::malloc_trim(0);
  reset_peak();
  const double before = peak_mib();
  const auto start = std::chrono::steady_clock::now();
  size_t bytes = 0;
  {
    const std::string text = expose(format);
    bytes = text.size();
  }
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  std::printf("%-16s %8.1f ms %8.1f MiB extra %8.1f MiB of text\n", what, ms, peak_mib() - before,
              double(bytes) / (1 << 20));
}

int run() {
  constexpr int kMetrics = 96, kSeries = 1000, kHistograms = 5, kHistogramSeries = 50;
  std::vector<std::unique_ptr<Counter>> counters;
  for (int m = 0; m < kMetrics; ++m) {
    counters.push_back(std::make_unique<Counter>("bench_requests_" + std::to_string(m) + "_total", "Bench.",
                                                 std::vector<std::string>{"route", "tenant"}));
    for (int s = 0; s < kSeries; ++s) {
      counters.back()->with({"/v1/chat/completions", "tenant-" + std::to_string(s)}).add(s * 7919.5);
    }
  }
  std::vector<std::unique_ptr<Histogram>> histograms;
  for (int m = 0; m < kHistograms; ++m) {
    histograms.push_back(std::make_unique<Histogram>("bench_wait_" + std::to_string(m) + "_seconds", "Bench.",
                                                     exponential_bounds(0.001, 2, 14),
                                                     std::vector<std::string>{"route"}));
    for (int s = 0; s < kHistogramSeries; ++s) {
      for (int i = 1; i < 100; ++i) histograms.back()->with({"r" + std::to_string(s)}).observe(0.001 * i * s);
    }
  }
  std::printf("series: %d (aim: under 200 ms and 64 MiB)\n", kMetrics * kSeries + kHistograms * kHistogramSeries * 17);
  for (int round = 0; round < 3; ++round) {
    measure("prometheus text", Format::kPrometheusText);
    measure("openmetrics", Format::kOpenMetrics);
    measure("protobuf", Format::kProtobuf);
  }
  Counter& hot = *counters[0];
  constexpr int kUpdates = 2'000'000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kUpdates; ++i) histograms[0]->with({"r7"}).observe(0.0001 * (i & 1023));
  const auto middle = std::chrono::steady_clock::now();
  for (int i = 0; i < kUpdates; ++i) hot.with({"/v1/chat/completions", "tenant-7"}).add();
  const auto end = std::chrono::steady_clock::now();
  std::printf("observe: %.1f ns, add: %.1f ns (with the look-up of the series)\n",
              std::chrono::duration<double, std::nano>(middle - start).count() / kUpdates,
              std::chrono::duration<double, std::nano>(end - middle).count() / kUpdates);
  return 0;
}

}  // namespace
}  // namespace spillway::metrics

int main() { return spillway::metrics::run(); }
