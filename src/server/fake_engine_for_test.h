// FakeEngine: an engine for tests that says what it is told to. It answers at once, inside submit(), or holds requests
// until the test lets them go, token by token. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/tokenizer.h"

namespace spillway::server {

class FakeEngine final : public engine::Engine {
 public:
  struct Live {
    std::unique_ptr<engine::Request> request;
    std::shared_ptr<engine::EventSink> sink;
    std::vector<int32_t> script;
    size_t said = 0;
    engine::Usage usage;
    bool ended = false;
  };

  // What to say: the tokens of a text and the end token, for a request.
  std::function<std::vector<int32_t>(const engine::Request&)> script;
  bool hold = false;  // requests wait for release()
  std::optional<engine::Refusal> refusal;
  engine::EngineState reported;
  engine::QueueBounds bounds;
  int vocab_size = 512;

  std::optional<engine::Refusal> submit(std::unique_ptr<engine::Request> request,
                                        std::shared_ptr<engine::EventSink> sink) override;
  void cancel(engine::RequestId id) override;
  void set_queue_bounds(const engine::QueueBounds& to) override { bounds = to; }
  engine::EngineState state() const override;
  const models::LanguageModel& model() const override;
  bool drain(TimePoint deadline) override;

  // Lets the held requests say up to this many more tokens each; they end when their script does.
  void release(size_t tokens = SIZE_MAX);
  void finish_all(engine::FinishReason reason);

  size_t live() const;
  size_t submitted() const;
  size_t cancelled() const;
  const Live& request(size_t index) const { return *requests_.at(index); }

 private:
  void say(Live& live, size_t tokens);
  void emit(Live& live, engine::Event event);
  engine::TokenEvent token_event(const Live& live, int32_t token) const;
  int32_t choose(Live& live, int32_t wanted) const;

  mutable std::recursive_mutex mutex_;
  std::vector<std::unique_ptr<Live>> requests_;
  size_t cancelled_ = 0;
};

}  // namespace spillway::server
