#include "apps/bench/measure.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cmath>
#include <memory>
#include <thread>

#include "apps/system.h"

namespace spillway::apps {
namespace {

typedef uint64_t Words __attribute__((vector_size(32)));

constexpr int kPasses = 6;

// Sums every word, so that the compiler cannot leave a read out.
uint64_t read_all(const Words* data, size_t count) {
  Words a{}, b{}, c{}, d{};
  for (size_t i = 0; i + 4 <= count; i += 4) a += data[i], b += data[i + 1], c += data[i + 2], d += data[i + 3];
  const Words sum = a + b + c + d;
  return sum[0] + sum[1] + sum[2] + sum[3];
}

}  // namespace

double memory_bandwidth(int threads, int64_t bytes_max) {
  const int64_t budget = std::min<int64_t>(bytes_max, read_memory().usable() / 4);
  const size_t words = size_t(budget) / size_t(threads) / sizeof(Words);
  std::vector<std::unique_ptr<Words[]>> buffers;
  for (int i = 0; i < threads; ++i) buffers.emplace_back(new Words[words]);
  std::atomic<uint64_t> sink{0};
  std::barrier together(threads + 1);
  std::vector<std::thread> readers;
  for (int i = 0; i < threads; ++i) {
    readers.emplace_back([&, i] {
      std::fill_n(buffers[size_t(i)].get(), words, Words{1, 2, 3, uint64_t(i)});
      for (int pass = 0; pass < kPasses; ++pass) {
        together.arrive_and_wait();
        sink += read_all(buffers[size_t(i)].get(), words);
        together.arrive_and_wait();
      }
    });
  }
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    together.arrive_and_wait();
    const auto start = std::chrono::steady_clock::now();
    together.arrive_and_wait();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, double(words * sizeof(Words)) * threads / seconds);
  }
  for (auto& reader : readers) reader.join();
  return best;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = size_t(std::ceil(share * double(values.size())));
  return values[std::clamp<size_t>(rank, 1, values.size()) - 1];
}

int compute_threads(int configured) {
  if (configured > 0) return configured;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  return sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
}

}  // namespace spillway::apps
