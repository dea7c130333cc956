// OneShotCall: the inputs of one client's request on a one-shot engine, and their answers. Independent of HTTP and
// gRPC. Dropping it cancels what still waits. start() and take() from the caller's thread; the answers come on the
// engine's.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "api/errors.h"
#include "base/clock.h"
#include "metrics/timeline.h"
#include "server/completion.h"
#include "server/served_one_shot.h"

namespace spillway::server {

class OneShotCall : public std::enable_shared_from_this<OneShotCall> {
 public:
  using Started = std::variant<std::shared_ptr<OneShotCall>, Refused>;

  // done: called once, on the engine's thread, when all answers are there, perhaps before start() returns; it must not
  // block.
  using Done = std::function<void(OneShotCall&)>;
  static Started start(std::shared_ptr<const ServedOneShot> model, std::vector<engine::OneShotRequest> requests,
                       Done done);
  ~OneShotCall();

  bool finished() const { return left_.load(std::memory_order_acquire) == 0; }
  void cancel();  // any thread; done is still called

  // Once finished: the outputs in the order of the requests, or why there are none.
  api::Parsed<std::vector<std::vector<float>>> take();

  // Once finished, before take(): how each input fared.
  const std::vector<engine::OneShotAnswer>& answers() const { return answers_; }

  const ServedOneShot& model() const { return *model_; }

 private:
  explicit OneShotCall(std::shared_ptr<const ServedOneShot> model) : model_(std::move(model)) {}

  std::shared_ptr<const ServedOneShot> model_;
  std::vector<engine::OneShotAnswer> answers_;  // each written once, before left_ counts it down
  std::atomic<size_t> left_{0};
  engine::OneShotId first_id_ = 0;
  Done done_;
};

// Once finished: the call's passage through queue and batch, for the request's timeline. The slowest of the inputs
// speaks for all.
void note_passage(metrics::Timeline& timeline, const OneShotCall& call, TimePoint submitted);

// The failure that an answer tells, if it is one.
std::optional<api::ApiError> error_of(const engine::OneShotAnswer& answer);

}  // namespace spillway::server
