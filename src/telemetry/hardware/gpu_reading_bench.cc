// What reading GPUs costs, with a library in NVIDIA's place whose calls take as long as an H200's. Aim: less than 0.1%
// of a core, however many GPUs. Time passes at a second a reading without being waited for.
#include <time.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "telemetry/hardware/gpu_metrics.h"

namespace spillway::telemetry {
namespace {

double thread_cpu_s() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

void read_gpus(int gpus, int seconds) {
  ::setenv("FAKE_NVML_GPUS", std::to_string(gpus).c_str(), 1);
  auto nvml = Nvml::load(FAKE_NVML);
  SW_CHECK(nvml.ok(), nvml.error().message);
  TimePoint now = std::chrono::steady_clock::now();
  record_gpus(**nvml, true, now);  // the first reads everything
  const double start = thread_cpu_s();
  for (int second = 0; second < seconds; ++second) {
    now += std::chrono::seconds(1);
    record_gpus(**nvml, true, now);
  }
  std::printf("%d GPUs: %.4f%% of a core (aim < 0.1%%); read every", gpus, 100 * (thread_cpu_s() - start) / seconds);
  for (size_t call = 0; call < Nvml::kCalls; ++call) {
    std::printf(" %s %.0f s", Nvml::name_of_call(call), std::ceil((*nvml)->period_s(call)));
  }
  std::printf("\n");
}

}  // namespace
}  // namespace spillway::telemetry

int main() {
  for (const int gpus : {1, 2, 4, 8}) spillway::telemetry::read_gpus(gpus, 1800);
}
