// What a span costs: nothing to speak of while nobody traces. Floor: off, one load and a branch; on, two clock readings
// (measured here too) and a store.
#include <chrono>
#include <cstdio>

#include "base/trace.h"

namespace spillway::trace {
namespace {

template <class Body>
double nanoseconds(int64_t times, Body&& body) {
  double best = 1e9;
  for (int run = 0; run < 5; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < times; ++i) body(i);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / double(times) * 1e9);
  }
  return best;
}

void measure() {
  int64_t sum = 0;
  const auto span = [&](int64_t i) {
    Span one("bench", "span", "i", i);
    asm volatile("" ::: "memory");
  };
  const double off = nanoseconds(50'000'000, span);
  const double clock = nanoseconds(2'000'000, [&](int64_t) { sum += now_ns(); });
  start();
  const double on = nanoseconds(2'000'000, span);
  stop();
  std::printf("span while off  %6.2f ns\nspan while on   %6.1f ns   (floor: two clock readings, %.1f ns; ratio %.2f)\n",
              off, on, 2 * clock, on / (2 * clock));
  if (sum == 42) std::puts("");  // keeps the readings
}

}  // namespace
}  // namespace spillway::trace

int main() { spillway::trace::measure(); }
