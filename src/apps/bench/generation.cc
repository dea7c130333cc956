#include "apps/bench/generation.h"

#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>

#include "models/language_model.h"

namespace spillway::apps {
namespace {

std::atomic<engine::RequestId> next_id{1};

class Timer : public engine::EventSink {
 public:
  void on_event(engine::Event event) override {
    const double now = seconds(std::chrono::steady_clock::now() - start_);
    std::lock_guard lock(mutex_);
    if (!event.tokens.empty()) {
      if (generation_.tokens == 0) generation_.first_token_s = now;
      generation_.last_token_s = now;
      generation_.tokens += int(event.tokens.size());
    }
    generation_.usage = event.usage;
    finish_ = event.finish;
    if (finish_ != engine::FinishReason::kNone) ended_.notify_all();
  }

  Result<Generation> wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return finish_ != engine::FinishReason::kNone; });
    if (finish_ != engine::FinishReason::kLength)
      return Error{ErrorCode::kInternal, "a benchmark's request ended before its length"};
    return generation_;
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable ended_;
  Generation generation_;
  engine::FinishReason finish_ = engine::FinishReason::kNone;
};

}  // namespace

Result<std::vector<Generation>> generate(engine::Engine& engine, int count, const GenerationShape& shape) {
  std::mt19937_64 random(shape.seed);
  std::uniform_int_distribution<int32_t> token(0, engine.model().info().vocab_size - 1);
  std::vector<std::shared_ptr<Timer>> timers;
  std::vector<std::unique_ptr<engine::Request>> requests;
  for (int i = 0; i < count; ++i) {
    auto request = std::make_unique<engine::Request>();
    request->id = next_id++;
    for (int t = 0; t < shape.prompt_tokens; ++t) request->prompt.push_back(token(random));
    request->max_tokens = shape.output_tokens;
    request->sampling.temperature = 0;
    request->use_prefix_cache = false;
    requests.push_back(std::move(request));
  }
  for (auto& request : requests) {
    const auto id = request->id;
    timers.push_back(std::make_shared<Timer>());
    if (const auto refusal = engine.submit(std::move(request), timers.back())) {
      return Error{ErrorCode::kResourceExhausted, fmt::format("request {} was refused: {}", id, refusal->message)};
    }
  }
  std::vector<Generation> generations;
  for (const auto& timer : timers) {
    SW_ASSIGN(Generation generation, timer->wait());
    generations.push_back(std::move(generation));
  }
  return generations;
}

}  // namespace spillway::apps
