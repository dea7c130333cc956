// What the benchmarks measure with: the machine's memory bandwidth, and statistics of repeated runs.
#pragma once

#include <cstdint>
#include <vector>

namespace spillway::apps {

// Bytes a second that `threads` threads together read from memory, the best of several passes over buffers larger than
// any cache. Takes about a second.
double memory_bandwidth(int threads, int64_t bytes_max = int64_t{1} << 30);

double median(std::vector<double> values);                    // 0 when empty
double percentile(std::vector<double> values, double share);  // nearest rank; share in (0, 1]

// The threads that the engine computes with for hardware.threads.
int compute_threads(int configured);

}  // namespace spillway::apps
