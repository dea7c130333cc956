// BatchRunner: the model and its stream, and one batch through them. The engine's thread.
#pragma once

#include <chrono>
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
    std::chrono::steady_clock::time_point ended;
  };
  // A batch under way in one of the model's slots.
  struct Launched {
    std::vector<tensor::TensorView> views;
    std::string failure;
    size_t inputs = 0;
    int64_t mark = -1;  // of the stream, behind the batch
    std::chrono::steady_clock::time_point began;
  };
  Launched launch(std::span<const models::OneShotInput> batch, int slot);
  // Waits for its end. The time counts from since, where the batch began before: another was under way till then.
  Output finish(Launched launched, std::chrono::steady_clock::time_point since = {});
  Output run(std::span<const models::OneShotInput> batch) { return finish(launch(batch, 0)); }

  // Whether the device computes while the caller goes on, and how many batches may be under way.
  bool overlaps() const { return slots() > 1 || stream_.device().kind == tensor::DeviceKind::kCuda; }
  int slots() const { return model_->slots(); }
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
