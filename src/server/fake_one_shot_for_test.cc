#include "server/fake_one_shot_for_test.h"

#include <algorithm>

namespace spillway::server {

using models::OneShotInfo;
using models::OneShotOutput;
using Outcome = engine::OneShotAnswer::Outcome;

std::optional<engine::Refusal> FakeOneShot::submit(std::vector<engine::OneShotRequest> requests,
                                                   std::vector<engine::OneShotDone> done, engine::OneShotId& first_id) {
  std::vector<Held> now;
  {
    std::lock_guard lock(mutex_);
    if (refusal) return refusal;
    first_id = next_id_;
    seen_ = requests;
    for (size_t i = 0; i < requests.size(); ++i) {
      Held held{next_id_++, std::move(requests[i]), std::move(done[i])};
      (hold ? held_.push_back(std::move(held)) : now.push_back(std::move(held)));
    }
  }
  for (Held& each : now) {
    const bool late = each.request.deadline <= std::chrono::steady_clock::now();
    give(std::move(each), late ? Outcome::kDeadline : failure ? Outcome::kFailed : Outcome::kDone);
  }
  return std::nullopt;
}

void FakeOneShot::give(Held held, Outcome outcome) {
  engine::OneShotAnswer reply;
  reply.outcome = outcome;
  reply.batch_inputs = 1;
  if (outcome == Outcome::kDone) reply.values = answer(held.request);
  if (outcome == Outcome::kFailed) reply.message = *failure;
  {
    std::lock_guard lock(mutex_);
    if (outcome == Outcome::kDone) {
      ++statistics_.inputs;
      ++statistics_.batches;
      statistics_.last_inference_ms = 1;
      for (auto* sum :
           {&statistics_.success, &statistics_.queue, &statistics_.compute, &statistics_.compute_by_size[1]}) {
        sum->add(1e-6);
      }
    } else {
      statistics_.failure.add(1e-6);
    }
  }
  held.done(std::move(reply));
}

void FakeOneShot::cancel(engine::OneShotId first, size_t count) {
  std::vector<Held> gone;
  {
    std::lock_guard lock(mutex_);
    for (auto it = held_.begin(); it != held_.end();) {
      if (it->id < first || it->id >= first + count) {
        ++it;
        continue;
      }
      gone.push_back(std::move(*it));
      it = held_.erase(it);
    }
    cancelled_ += gone.size();
    emptied_.notify_all();
  }
  for (Held& each : gone) give(std::move(each), Outcome::kCancelled);
}

engine::OneShotStatistics FakeOneShot::statistics() const {
  std::lock_guard lock(mutex_);
  return statistics_;
}

bool FakeOneShot::drain(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  return emptied_.wait_until(lock, deadline, [&] { return held_.empty(); });
}

void FakeOneShot::release() {
  std::deque<Held> all;
  {
    std::lock_guard lock(mutex_);
    all.swap(held_);
    emptied_.notify_all();
  }
  for (Held& each : all) give(std::move(each), Outcome::kDone);
}

size_t FakeOneShot::held() const {
  std::lock_guard lock(mutex_);
  return held_.size();
}

size_t FakeOneShot::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

std::vector<engine::OneShotRequest> FakeOneShot::seen() const {
  std::lock_guard lock(mutex_);
  return seen_;
}

std::function<std::vector<float>(const engine::OneShotRequest&)> FakeOneShot::default_answer() const {
  return [this](const engine::OneShotRequest& request) {
    const OneShotInfo& info = model_.info();
    const size_t tokens = request.tokens.size();
    size_t width = info.labels.size();
    if (request.output == OneShotOutput::kEmbedding) width = size_t(info.embedding_dims);
    if (request.output == OneShotOutput::kTokenVectors) width = tokens * size_t(info.hidden_size);
    if (request.output == OneShotOutput::kSparse) width = size_t(info.vocab_size);
    std::vector<float> out(width, 0.0f);
    for (size_t i = 0; i < tokens && width > 0; ++i) {
      out[request.output == OneShotOutput::kSparse ? size_t(request.tokens[i]) : i % width] += float(request.tokens[i]);
    }
    for (size_t i = 0; i < request.pixels.size() && width > 0; ++i) out[i % width] += request.pixels[i];
    return out;
  };
}

OneShotInfo FakeOneShot::encoder_info() {
  OneShotInfo info;
  info.architecture = "BertModel";
  info.outputs = {OneShotOutput::kEmbedding, OneShotOutput::kTokenVectors, OneShotOutput::kSparse};
  info.vocab_size = 30522;
  info.hidden_size = 4;
  info.embedding_dims = 4;
  info.tokens_max = 32;
  info.type_vocab_size = 2;
  info.precision = "fp32";
  return info;
}

OneShotInfo FakeOneShot::reranker_info() {
  OneShotInfo info = encoder_info();
  info.architecture = "BertForSequenceClassification";
  info.outputs = {OneShotOutput::kScores};
  info.labels = {"LABEL_0"};
  return info;
}

OneShotInfo FakeOneShot::classifier_info() {
  OneShotInfo info = reranker_info();
  info.labels = {"negative", "neutral", "positive"};
  return info;
}

OneShotInfo FakeOneShot::vision_info() {
  OneShotInfo info;
  info.architecture = "ResNetForImageClassification";
  info.vision = true;
  info.outputs = {OneShotOutput::kScores};
  info.channels = 3;
  info.height = info.width = 8;
  info.labels = {"cat", "dog"};
  info.precision = "fp32";
  return info;
}

}  // namespace spillway::server
