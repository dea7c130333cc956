// StepGraphs: decode steps as captured CUDA graphs, one a bucket (a number of sequences of one row each). The first
// step of a bucket runs as it is, so that library plans and workspaces exist; the second is recorded, and from then on
// replayed with one launch. Valid as long as the step's memory stays where it is. Owned by the model; engine's thread.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "tensor/cuda/cuda.h"
#include "tensor/stream.h"

namespace spillway::models {

class StepGraphs {
 public:
  // The smallest bucket that holds so many sequences; 0 when there is none.
  static constexpr int64_t kSequencesMax = 256;  // of the largest bucket
  static int64_t bucket_for(int64_t sequences);
  static int64_t bucket_below(int64_t bucket);  // the next smaller one; 0 below the smallest

  // Records the step with the stages that the stream watches for, runs it and forgets it.
  static void run_watched(tensor::Stream& stream, const std::function<void()>& step);

  // Runs `step`, which launches the same kernels on the same memory whenever `bucket` and `memory` are the same.
  void run(int64_t bucket, const void* memory, tensor::Stream& stream, const std::function<void()>& step);

  // Before memory that steps were recorded on goes.
  void forget() { entries_.clear(); }

 private:
  struct Entry {
    std::unique_ptr<tensor::cuda::DeviceStream::Graph> graph;
    bool seen = false;
    bool refused = false;  // the recording failed: such steps run as they are
  };
  std::map<std::pair<int64_t, const void*>, Entry> entries_;
};

}  // namespace spillway::models
