#include "server/fake_engine_for_test.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace spillway::server {

using engine::FinishReason;

std::optional<engine::Refusal> FakeEngine::submit(std::unique_ptr<engine::Request> request,
                                                  std::shared_ptr<engine::EventSink> sink) {
  std::lock_guard lock(mutex_);
  if (refusal) return refusal;
  auto live = std::make_unique<Live>();
  live->script = script ? script(*request) : std::vector<int32_t>();
  live->usage.prompt_tokens = static_cast<int>(request->prompt.size());
  live->request = std::move(request);
  live->sink = std::move(sink);
  requests_.push_back(std::move(live));
  if (!hold) say(*requests_.back(), SIZE_MAX);
  return std::nullopt;
}

void FakeEngine::cancel(engine::RequestId id) {
  std::lock_guard lock(mutex_);
  for (auto& live : requests_) {
    if (live->request->id != id || live->ended) continue;
    ++cancelled_;
    live->ended = true;
    engine::Event event;
    event.finish = FinishReason::kCancelled;
    emit(*live, std::move(event));
  }
}

engine::EngineState FakeEngine::state() const {
  std::lock_guard lock(mutex_);
  return reported;
}

const models::LanguageModel& FakeEngine::model() const {
  SW_CHECK(false, "the fake engine has no model");
  std::abort();
}

bool FakeEngine::drain(TimePoint) {
  std::lock_guard lock(mutex_);
  reported.draining = true;
  return std::ranges::all_of(requests_, [](const auto& live) { return live->ended; });
}

void FakeEngine::release(size_t tokens) {
  std::lock_guard lock(mutex_);
  for (auto& live : requests_) {
    if (!live->ended) say(*live, tokens);
  }
}

void FakeEngine::finish_all(FinishReason reason) {
  std::lock_guard lock(mutex_);
  for (auto& live : requests_) {
    if (std::exchange(live->ended, true)) continue;
    engine::Event event;
    event.finish = reason;
    emit(*live, std::move(event));
  }
}

size_t FakeEngine::live() const {
  std::lock_guard lock(mutex_);
  return std::ranges::count_if(requests_, [](const auto& live) { return !live->ended; });
}

size_t FakeEngine::submitted() const {
  std::lock_guard lock(mutex_);
  return requests_.size();
}

size_t FakeEngine::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

void FakeEngine::say(Live& live, size_t tokens) {
  if (live.said == 0) {
    engine::Event first;
    first.started = true;
    if (live.request->prompt_logprobs) {
      for (const int32_t id : live.request->prompt) first.prompt.push_back(token_event(live, id));
      first.prompt.front().logprob = 0;
    }
    emit(live, std::move(first));
  }
  for (; tokens > 0 && !live.ended; --tokens) {
    engine::Event event;
    if (static_cast<int>(live.said) >= live.request->max_tokens) {
      event.finish = FinishReason::kLength;
    } else {
      const int32_t wanted = live.said < live.script.size() ? live.script[live.said] : live.request->stop_tokens.at(0);
      const int32_t token = choose(live, wanted);
      ++live.said;
      live.usage.completion_tokens = static_cast<int>(live.said);
      event.tokens.push_back(token_event(live, token));
      if (std::ranges::find(live.request->stop_tokens, token) != live.request->stop_tokens.end())
        event.finish = FinishReason::kStop;
    }
    live.ended = event.finish != FinishReason::kNone;
    emit(live, std::move(event));
  }
}

void FakeEngine::emit(Live& live, engine::Event event) {
  event.id = live.request->id;
  event.usage = live.usage;
  live.sink->on_event(std::move(event));
}

engine::TokenEvent FakeEngine::token_event(const Live& live, int32_t token) const {
  engine::TokenEvent event;
  event.token = token;
  if (live.request->top_logprobs < 0) return event;
  event.logprob = -0.5f;
  for (int k = 0; k < live.request->top_logprobs; ++k) event.top.push_back({token, -0.5f - static_cast<float>(k)});
  return event;
}

int32_t FakeEngine::choose(Live& live, int32_t wanted) const {
  if (!live.request->constraint) return wanted;
  std::vector<uint64_t> words((vocab_size + 63) / 64);
  live.request->constraint->allowed(words);
  const auto allowed = [&](int32_t id) { return (words[id / 64] >> (id % 64) & 1) != 0; };
  int32_t token = wanted;
  if (!allowed(token)) {
    for (token = 0; token < vocab_size && !allowed(token);) ++token;
    SW_CHECK(token < vocab_size, "the constraint allows no token");
  }
  live.request->constraint->accept(token);
  return token;
}

}  // namespace spillway::server
