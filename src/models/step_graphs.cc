#include "models/step_graphs.h"

#include <stdexcept>

#include "base/log.h"

namespace spillway::models {
namespace {

constexpr int64_t kBuckets[] = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256};

// Null when the driver refuses: what was recorded so far is dropped.
std::unique_ptr<tensor::cuda::DeviceStream::Graph> record(tensor::Stream& stream, const std::function<void()>& step) {
  stream.cuda().begin_capture();
  std::string problem;
  try {
    step();
  } catch (const std::runtime_error& error) {
    problem = error.what();
  }
  try {
    auto graph = stream.cuda().end_capture();
    if (problem.empty()) return graph;
  } catch (const std::runtime_error& error) {
    if (problem.empty()) problem = error.what();
  }
  SW_WARN("a decode step was not recorded and runs launch by launch: {}", problem);
  return nullptr;
}

}  // namespace

int64_t StepGraphs::bucket_for(int64_t sequences) {
  for (const int64_t bucket : kBuckets) {
    if (sequences <= bucket) return bucket;
  }
  return 0;
}

int64_t StepGraphs::bucket_below(int64_t bucket) {
  int64_t below = 0;
  for (const int64_t smaller : kBuckets) {
    if (smaller < bucket) below = smaller;
  }
  return below;
}

void StepGraphs::run_watched(tensor::Stream& stream, const std::function<void()>& step) {
  const auto graph = record(stream, step);
  if (!graph) return step();
  stream.cuda().run(*graph);
  stream.synchronize();
}

void StepGraphs::run(int64_t bucket, const void* memory, tensor::Stream& stream, const std::function<void()>& step) {
  Entry& entry = entries_[{bucket, memory}];
  if (!entry.seen || entry.refused) {
    entry.seen = true;
    return step();
  }
  if (!entry.graph) entry.graph = record(stream, step);
  if (!entry.graph) {
    entry.refused = true;
    return step();
  }
  stream.cuda().run(*entry.graph);
}

}  // namespace spillway::models
