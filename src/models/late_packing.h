// LatePacking: packs the weights of a mapped checkpoint behind a model that serves from the checkpoint's rows already.
// Made by load_model(); kept by the model's WeightSource, which outlives the layers and ends this before its mapping.
// Weights are added by the loading thread, then packed by a thread of its own that gives way to serving.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/late_weight.h"
#include "kernels/pack_store.h"
#include "models/packed_weights.h"
#include "weights/weight_source.h"

namespace spillway::models {

class LatePacking final : public kernels::PackLater {
 public:
  // source: keeps this. store: is given what was packed; or null. after: that long after start() packing begins.
  LatePacking(const weights::WeightSource& source, PackedWeights* store, std::chrono::milliseconds after)
      : source_(source), store_(store), after_(after) {}
  ~LatePacking() override;  // gives up

  bool take(const tensor::TensorView& weight) override { return source_.take(weight); }
  void add(const kernels::PackRequest& request, std::shared_ptr<kernels::LateWeight> weight) override {
    weights_.emplace_back(request, std::move(weight));
  }

  // After the last weight. False when there is nothing to do.
  bool start();

 private:
  bool stopped_within(std::chrono::milliseconds time);
  void pack();

  const weights::WeightSource& source_;
  PackedWeights* const store_;
  const std::chrono::milliseconds after_;
  std::vector<std::pair<kernels::PackRequest, std::shared_ptr<kernels::LateWeight>>> weights_;

  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread packer_;
};

}  // namespace spillway::models
