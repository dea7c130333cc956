// Collector: an EventSink that keeps what a request got and lets a test wait for its end. Any thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace spillway::engine::testing {

class Collector final : public EventSink {
 public:
  void on_event(Event event) override {
    std::lock_guard lock(mutex_);
    if (finish_ != FinishReason::kNone) events_after_finish_ = true;
    started_ += event.started;
    for (auto& token : event.tokens) tokens_.push_back(std::move(token));
    if (!event.prompt.empty()) prompt_ = std::move(event.prompt);
    usage_ = event.usage;
    finish_ = event.finish;
    changed_.notify_all();
  }

  FinishReason wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finish_ != FinishReason::kNone; });
    return finish_;
  }
  void wait_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tokens_.size() >= count || finish_ != FinishReason::kNone; });
  }

  // After the end, or from the only thread.
  std::vector<int32_t> tokens() const {
    std::lock_guard lock(mutex_);
    std::vector<int32_t> ids;
    for (const auto& token : tokens_) ids.push_back(token.token);
    return ids;
  }
  const std::vector<TokenEvent>& events() const { return tokens_; }
  const std::vector<TokenEvent>& prompt() const { return prompt_; }
  Usage usage() const { return usage_; }
  FinishReason finish() const { return finish_; }
  bool well_formed() const { return started_ <= 1 && !events_after_finish_; }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenEvent> tokens_;
  std::vector<TokenEvent> prompt_;
  Usage usage_;
  FinishReason finish_ = FinishReason::kNone;
  int started_ = 0;
  bool events_after_finish_ = false;
};

inline std::unique_ptr<Request> make_request(RequestId id, std::vector<int32_t> prompt, int max_tokens,
                                             float temperature = 0) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->prompt = std::move(prompt);
  request->max_tokens = max_tokens;
  request->sampling.temperature = temperature;
  return request;
}

}  // namespace spillway::engine::testing
