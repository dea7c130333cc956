// BatchingEngine: the one-shot engine. Callers' threads submit, ask and cancel under mutex_ (one_shot_engine.cc); its
// own thread takes what came, asks the scheduler and runs batches (batching_engine.cc). When to launch what is
// BatchScheduler's.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/batching/answer_margin.h"
#include "engine/batching/batch_runner.h"
#include "engine/batching/batch_scheduler.h"
#include "engine/batching/device_share.h"
#include "engine/batching/one_shot_admission.h"
#include "engine/batching/one_shot_metrics.h"
#include "engine/one_shot_engine.h"

namespace spillway::engine {

class BatchingEngine final : public OneShotEngine {
 public:
  BatchingEngine(OneShotEngineOptions options, BatchRunner runner, BatchScheduler scheduler, int inputs_max)
      : options_(std::move(options)),
        inputs_max_(inputs_max),
        runner_(std::move(runner)),
        scheduler_(std::move(scheduler)),
        progress_(now()) {
    if (options_.share) member_ = options_.share->join(options_.weight);
    publish(0, 0);
    thread_ = std::thread([this] { run(); });
  }

  ~BatchingEngine() override {
    {
      std::lock_guard lock(mutex_);
      draining_ = stopped_ = true;
    }
    work_.notify_one();
    thread_.join();
    if (options_.share) options_.share->leave(member_);
  }

  std::optional<Refusal> submit(std::vector<OneShotRequest> requests, std::vector<OneShotDone> done,
                                OneShotId& first_id) override;
  void cancel(OneShotId first, size_t count) override {
    {
      std::lock_guard lock(mutex_);
      cancelled_.push_back({first, count});
    }
    work_.notify_one();
  }
  void set_queue_bounds(const QueueBounds& bounds) override {
    std::lock_guard lock(mutex_);
    options_.queue = bounds;
  }
  OneShotState state() const override;
  OneShotStatistics statistics() const override {
    std::lock_guard lock(mutex_);
    return statistics_;
  }
  const models::OneShotModel& model() const override { return runner_.model(); }
  bool drain(TimePoint deadline) override {
    std::unique_lock lock(mutex_);
    draining_ = true;
    return drained_.wait_until(lock, deadline, [&] { return unsettled_ == 0; });
  }

 private:
  static TimePoint now() { return std::chrono::steady_clock::now(); }

  // One input between submission and its answer.
  struct Live {
    OneShotRequest request;
    OneShotDone done;
    TimePoint arrived;
    double predicted_s = 0;  // until its answer
  };
  // Inputs that were submitted together.
  struct Arrival {
    OneShotId first;
    TimePoint at;
    bool found_idle;
    double predicted_s;
    std::vector<OneShotRequest> requests;
    std::vector<OneShotDone> done;
  };
  struct Range {
    OneShotId first;
    size_t count;
  };
  struct Ended {
    OneShotDone done;
    OneShotAnswer answer;
    double total_s;
    std::shared_ptr<metrics::Timeline> timeline;
  };
  // A batch that was launched.
  struct Running {
    BatchDecision decision;
    BatchRecord record;
    BatchRunner::Launched launched;
    TimePoint began;
    double predicted_s = 0;
  };
  using Outcome = OneShotAnswer::Outcome;

  QueueBounds queue_bounds() const {
    std::lock_guard lock(mutex_);
    return options_.queue;
  }

  // The engine's thread.
  void run();
  bool take(TimePoint wake);  // false: stopped
  void admit(Arrival arrival);
  Running launch(BatchDecision decision, int slot);
  std::optional<Running> launch_behind(double predicted_s, TimePoint ends, int slot);
  TimePoint finish(Running running, TimePoint since);
  void compute(BatchDecision decision);  // and those that go behind it
  void end(const WaitingInput& input, OneShotAnswer answer);
  void end_all(const std::vector<WaitingInput>& inputs, OneShotAnswer::Outcome outcome);
  void deliver();
  void publish(int running, double predicted_s);

  OneShotLoad load_now(TimePoint now) const;  // mutex_ is held

  OneShotEngineOptions options_;  // its queue's bounds change, under mutex_
  const int inputs_max_;          // of a batch
  uint64_t member_ = 0;           // of options_.share

  // The engine's thread alone.
  BatchRunner runner_;
  BatchScheduler scheduler_;
  std::unordered_map<OneShotId, Live> live_;
  std::vector<Ended> ended_;  // to be told
  double mean_cost_ = 0;      // of an input
  AnswerMargin margin_;
  double turn_ratio_ = 1;  // a batch's time with its wait for the device, by its own

  mutable std::mutex mutex_;
  std::condition_variable work_, drained_;
  std::vector<Arrival> inbox_;
  std::vector<Range> cancelled_;
  OneShotId next_id_ = 1;
  OneShotLoad load_;                    // as of the engine's thread
  std::array<int, 3> inbox_waiting_{};  // of inbox_, by priority
  std::array<int64_t, 3> inbox_cost_{};
  TimePoint batch_end_;  // predicted, of the batch under way
  TimePoint progress_;
  OneShotStatistics statistics_;
  int64_t unsettled_ = 0;  // accepted and not ended
  bool idle_ = false;      // nothing waits and the device is free
  bool draining_ = false;
  bool stopped_ = false;

  std::thread thread_;  // last
};

}  // namespace spillway::engine
