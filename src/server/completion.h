// Completion: one planned request running on a model's engine, as text events. Independent of HTTP: the routes drive it
// from a coroutine, `eval` and `chat` block on it. All calls from one thread at a time, except cancel(). Dropping it
// cancels what still runs. Not its job: JSON.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/chat.h"
#include "api/common.h"
#include "api/errors.h"
#include "server/choice_text.h"
#include "server/event_queue.h"
#include "server/plan.h"
#include "server/served_model.h"

namespace spillway::server {

// Why a request was not taken, and when to come back.
struct Refused {
  api::ApiError error;
  double retry_after_s = 0;  // 0: coming back will not help
  double predicted_wait_s = 0;
  std::string reason;  // metric label and body: "queue_requests", "predicted_wait", ...
};

// What became known of one choice since the last poll.
struct ChoiceUpdate {
  int choice = 0;
  bool started = false;                    // its prefill began; once
  std::vector<engine::TokenEvent> prompt;  // with prompt_logprobs, once
  std::vector<TextPiece> pieces;
  std::vector<int32_t> tokens;              // that the pieces came from, when the plan wants them told
  std::optional<api::FinishReason> finish;  // set or error set: the choice has ended
  std::optional<api::ApiError> error;       // deadline, engine failure, server stopping
  std::string stop_sequence;                // with finish: the stop string that ended it
};

class Completion {
 public:
  using Started = std::variant<std::unique_ptr<Completion>, Refused>;

  // notify: called on the engine's thread when poll() would have news; must return at once.
  static Started start(std::shared_ptr<const ServedModel> model, Plan plan, std::function<void()> notify = {});
  ~Completion();

  int choices() const { return static_cast<int>(running_.size()); }
  std::vector<ChoiceUpdate> poll();  // never waits
  void wait_until(TimePoint deadline) { queue_->wait_until(deadline); }
  bool finished() const { return ended_ == choices(); }
  void cancel();  // any thread; ended choices stay as they are
  api::Usage usage() const;
  const Plan& plan() const { return plan_; }
  const ServedModel& model() const { return *model_; }

 private:
  struct Running {
    engine::RequestId id = 0;
    std::unique_ptr<ChoiceText> text;
    engine::Usage usage;
    bool ended = false;
    bool emitted = false;
  };

  Completion(std::shared_ptr<const ServedModel> model, Plan plan, std::function<void()> notify);
  std::optional<Refused> submit(int choice);
  int resumed() const { return static_cast<int>(plan_.resumed.size()); }
  ChoiceUpdate take(int choice, engine::Event event);
  void end(ChoiceUpdate& update, Running& running, engine::FinishReason reason);

  std::shared_ptr<const ServedModel> model_;
  Plan plan_;
  std::shared_ptr<EventQueue> queue_;
  std::vector<Running> running_;
  int ended_ = 0;
  std::atomic<bool> cancelled_{false};
};

// Everything a choice said, put together.
struct CollectedChoice {
  std::string content;
  std::string reasoning;
  std::vector<api::ToolCall> tool_calls;  // ids empty
  std::vector<api::TokenLogprobs> logprobs;
  std::vector<api::TokenLogprobs> reasoning_logprobs;
  std::vector<engine::TokenEvent> prompt;
  std::optional<api::FinishReason> finish;
  std::optional<api::ApiError> error;
  std::string stop_sequence;

  void add(ChoiceUpdate update);
};

// Runs to the end and blocks meanwhile. For programs.
std::vector<CollectedChoice> run(Completion& completion);

}  // namespace spillway::server
