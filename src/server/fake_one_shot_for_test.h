// FakeOneShot: a one-shot engine whose answers are a function of the request, given at once, from a thread of its own,
// or when the test lets it. For tests and for measuring what the protocols cost.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/one_shot_engine.h"

namespace spillway::server {

class FakeOneShotModel final : public models::OneShotModel {
 public:
  explicit FakeOneShotModel(models::OneShotInfo info) : info_(std::move(info)) {}
  const models::OneShotInfo& info() const override { return info_; }
  int64_t batch_cost_max() const override { return 16384; }
  int batch_inputs_max() const override { return 64; }
  std::vector<tensor::TensorView> run(std::span<const models::OneShotInput>, tensor::Stream&) override { return {}; }

 private:
  models::OneShotInfo info_;
};

class FakeOneShot final : public engine::OneShotEngine {
 public:
  explicit FakeOneShot(models::OneShotInfo info) : model_(std::move(info)) {}
  ~FakeOneShot() override { release(); }

  // What is answered. The default: of an embedding, sums of the tokens by position; of scores, the number of tokens.
  std::function<std::vector<float>(const engine::OneShotRequest&)> answer = default_answer();
  std::optional<engine::Refusal> refusal;  // for every submit
  std::optional<std::string> failure;      // every answer fails so
  bool hold = false;                       // answers wait for release()
  engine::OneShotState reported;
  engine::QueueBounds bounds;

  std::optional<engine::Refusal> submit(std::vector<engine::OneShotRequest> requests,
                                        std::vector<engine::OneShotDone> done, engine::OneShotId& first_id) override;
  void cancel(engine::OneShotId first, size_t count) override;
  void set_queue_bounds(const engine::QueueBounds& to) override { bounds = to; }
  engine::OneShotState state() const override { return reported; }
  engine::OneShotStatistics statistics() const override;
  const models::OneShotModel& model() const override { return model_; }
  bool drain(TimePoint deadline) override;

  void release();  // answers what is held
  size_t held() const;
  size_t cancelled() const;
  std::vector<engine::OneShotRequest> seen() const;  // the last submit's

  // One of each kind of model.
  static models::OneShotInfo encoder_info();
  static models::OneShotInfo reranker_info();
  static models::OneShotInfo classifier_info();
  static models::OneShotInfo vision_info();

 private:
  struct Held {
    engine::OneShotId id;
    engine::OneShotRequest request;
    engine::OneShotDone done;
  };
  std::function<std::vector<float>(const engine::OneShotRequest&)> default_answer() const;
  void give(Held held, engine::OneShotAnswer::Outcome outcome);

  FakeOneShotModel model_;
  mutable std::mutex mutex_;
  std::condition_variable emptied_;
  std::deque<Held> held_;
  std::vector<engine::OneShotRequest> seen_;
  engine::OneShotStatistics statistics_;
  engine::OneShotId next_id_ = 1;
  size_t cancelled_ = 0;
};

}  // namespace spillway::server
