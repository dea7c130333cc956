// BatchRunner: the model and its stream, and one batch through them. The engine's thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/batching/batch_scheduler.h"
#include "models/one_shot_model.h"
#include "tensor/stream.h"

namespace spillway::engine {

class BatchRunner {
 public:
  BatchRunner(std::unique_ptr<models::OneShotModel> model, tensor::Stream stream)
      : model_(std::move(model)), stream_(std::move(stream)) {}

  struct Output {
    std::vector<std::vector<float>> values;  // one an input
    std::string failure;                     // empty: none
    double latency_s = 0;
  };
  // meanwhile is called while the device computes, where it does so by itself.
  Output run(std::span<const models::OneShotInput> batch, const std::function<void()>& meanwhile);

  // Whether the device computes while the caller goes on.
  bool overlaps() const { return stream_.device().kind == tensor::DeviceKind::kCuda; }
  const models::OneShotModel& model() const { return *model_; }

 private:
  std::unique_ptr<models::OneShotModel> model_;
  tensor::Stream stream_;
};

// Sample batches, from one input up, until the time is over or the largest has been measured; the first touches
// everything and is not. Then one of each size that the model prepares for, for as much time again: else the request
// that first has a size waits for it. An error when the model cannot compute one.
Status warm_up(BatchRunner& runner, BatchScheduler& scheduler, const BatchLimitOptions& limits, double allowed_s);

}  // namespace spillway::engine
