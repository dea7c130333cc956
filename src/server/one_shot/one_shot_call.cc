#include "server/one_shot/one_shot_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/admission.h"

namespace spillway::server {

using api::ApiError;
using api::ErrorKind;

OneShotCall::Started OneShotCall::start(std::shared_ptr<const ServedOneShot> model,
                                        std::vector<engine::OneShotRequest> requests, Done done) {
  std::shared_ptr<OneShotCall> call(new OneShotCall(std::move(model)));
  const size_t count = requests.size();
  call->answers_.resize(count);
  call->left_ = count;
  call->done_ = std::move(done);
  std::vector<engine::OneShotDone> dones;
  dones.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    // Weak: a caller that has left takes its answers with it.
    dones.push_back([weak = std::weak_ptr(call), i](engine::OneShotAnswer answer) {
      const std::shared_ptr<OneShotCall> self = weak.lock();
      if (!self) return;
      self->answers_[i] = std::move(answer);
      if (self->left_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
      // Moved out: it may own what owns this call.
      const Done done = std::move(self->done_);
      if (done) done(*self);
    });
  }
  auto refusal = call->model_->engine().submit(std::move(requests), std::move(dones), call->first_id_);
  if (refusal) {
    call->left_ = 0;
    return refused(*refusal);
  }
  return call;
}

OneShotCall::~OneShotCall() { cancel(); }

void OneShotCall::cancel() {
  if (!finished()) model_->engine().cancel(first_id_, answers_.size());
}

api::Parsed<std::vector<std::vector<float>>> OneShotCall::take() {
  std::vector<std::vector<float>> out;
  out.reserve(answers_.size());
  for (engine::OneShotAnswer& answer : answers_) {
    if (auto error = error_of(answer)) return std::move(*error);
    out.push_back(std::move(answer.values));
  }
  return out;
}

std::optional<ApiError> error_of(const engine::OneShotAnswer& answer) {
  using Outcome = engine::OneShotAnswer::Outcome;
  switch (answer.outcome) {
    case Outcome::kDone:
      return std::nullopt;
    case Outcome::kDeadline:
      return ApiError{ErrorKind::kDeadline, "The request's deadline passed before its answer was made.", "", ""};
    case Outcome::kCancelled:
      return ApiError{ErrorKind::kCancelled, "The request was cancelled.", "", ""};
    case Outcome::kFailed:
      break;
  }
  return ApiError{ErrorKind::kServerError, "The model failed: " + answer.message, "", ""};
}

void note_passage(metrics::Timeline& timeline, const OneShotCall& call, TimePoint submitted) {
  using Kind = metrics::Moment::Kind;
  const auto last = std::ranges::max_element(
      call.answers(), {}, [](const engine::OneShotAnswer& answer) { return answer.queue_s + answer.compute_s; });
  if (last == call.answers().end()) return;
  timeline.set_model(call.model().name());
  timeline.add(Kind::kQueued, submitted, static_cast<int64_t>(call.answers().size()), 0, "inputs");
  timeline.add(Kind::kStarted, submitted + from_seconds(last->queue_s), 0, 0,
               fmt::format("a batch of {}", last->batch_inputs));
  timeline.add(Kind::kFinished, submitted + from_seconds(last->queue_s + last->compute_s));
}

}  // namespace spillway::server
