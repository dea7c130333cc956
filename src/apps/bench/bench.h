// The benchmarks, one file each; bench_command.cc gives them their command line.
#pragma once

#include <string>
#include <vector>

#include "apps/load/load_generator.h"
#include "base/result.h"
#include "config/config.h"

namespace spillway::apps {

struct LatencyBench {
  int prompt_tokens = 512;
  int output_tokens = 128;
  int repeats = 3;
  bool as_json = false;
};
Status bench_latency(const LatencyBench& bench, const config::Config& config);

struct ThroughputBench {
  int prompt_tokens = 128;
  int output_tokens = 64;
  std::vector<int> concurrency = {1, 4, 16, 64};
  bool as_json = false;
};
Status bench_throughput(const ThroughputBench& bench, const config::Config& config);

struct RooflineBench {
  std::vector<int> sequences = {1, 32, 128};
  int rows = 1;  // of each sequence in a step: with 2, one that verifies a draft
  int context_tokens = 512;
  int prefill_tokens = 4096;
  std::string layers;  // "A:B": a slice of the model
  bool as_json = false;
};
Status bench_roofline(const RooflineBench& bench, const config::Config& config);

// Of an encoder or a vision model, whose parts run fused and apart.
struct FusionBench {
  int inputs = 8;
  int tokens = 165;  // of each text
  int repeats = 5;
};
Status bench_fusion(const FusionBench& bench, const config::Config& config);

struct LoadBench {
  LoadOptions load;  // model: empty means the first that the server lists
  std::string trace_file;
  std::string prompts_file;  // one prompt a line
  double duration_s = 30;
  double ttft_objective_s = 1, itl_objective_s = 0.1;
  bool as_json = false;
};
Status bench_load(LoadBench bench);

}  // namespace spillway::apps
