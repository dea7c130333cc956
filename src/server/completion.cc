#include "server/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/admission.h"
#include "server/output_constraint.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;
using Kind = text::OutputDelta::Kind;

std::atomic<engine::RequestId> next_id{1};

}  // namespace

Completion::Completion(std::shared_ptr<const ServedModel> model, Plan plan, std::function<void()> notify)
    : model_(std::move(model)), plan_(std::move(plan)), queue_(std::make_shared<EventQueue>(std::move(notify))) {}

Completion::~Completion() {
  queue_->detach();
  if (!finished()) cancel();
}

Completion::Started Completion::start(std::shared_ptr<const ServedModel> model, Plan plan,
                                      std::function<void()> notify) {
  std::unique_ptr<Completion> completion(new Completion(std::move(model), std::move(plan), std::move(notify)));
  const int choices = static_cast<int>(completion->plan_.prompts.size()) * completion->plan_.n;
  completion->running_.resize(choices);
  for (int choice = 0; choice < choices; ++choice) {
    if (auto refused = completion->submit(choice)) {
      completion->running_.resize(choice);  // the rest was never submitted
      return std::move(*refused);
    }
  }
  return completion;
}

std::optional<Refused> Completion::submit(int choice) {
  const size_t index = choice / plan_.n;
  PromptIds& prompt = plan_.prompts[index];
  const int k = choice % plan_.n;
  auto request = std::make_unique<engine::Request>();
  request->id = next_id.fetch_add(1);
  request->prompt = prompt.ids;
  request->prompt.insert(request->prompt.end(), plan_.resumed.begin(), plan_.resumed.end());
  request->resumed = resumed();
  request->max_tokens = plan_.max_tokens[index] - resumed();
  request->sampling = plan_.sampling;
  if (request->sampling.seed) *request->sampling.seed += k;  // choices differ, and reproducibly
  request->stop_tokens = plan_.text.stop_tokens;
  request->min_tokens = std::max(0, plan_.min_tokens - resumed());
  request->top_logprobs = plan_.top_logprobs;
  request->prompt_logprobs = plan_.prompt_logprobs;
  request->priority = plan_.priority;
  request->deadline = plan_.deadline;
  request->timeline = plan_.timeline;
  if (plan_.grammar) {
    request->constraint = std::make_unique<OutputConstraint>(text::GrammarState::start(plan_.grammar, model_->trie()));
    for (const int32_t token : plan_.written) request->constraint->accept(token);
    for (const int32_t token : plan_.resumed) request->constraint->accept(token);
  }
  Running& running = running_[choice];
  running.id = request->id;
  ChoiceTextOptions options = plan_.text;
  options.parser.starts_in_reasoning = prompt.in_reasoning;
  running.text = std::make_unique<ChoiceText>(model_->tokenizer(), std::move(options));
  running.usage.prompt_tokens = static_cast<int>(prompt.ids.size());
  if (!plan_.resumed.empty()) {  // the text goes on in the middle of what the client has seen
    engine::Event told;
    for (const int32_t token : plan_.resumed) told.tokens.push_back({token, 0, {}});
    running.text->push(told);
  }
  const auto refusal = model_->engine().submit(std::move(request), queue_);
  if (!refusal) return std::nullopt;
  return refused(*refusal);
}

std::vector<ChoiceUpdate> Completion::poll() {
  std::vector<ChoiceUpdate> updates;
  for (engine::Event& event : queue_->take()) {
    for (int choice = 0; choice < choices(); ++choice) {
      if (running_[choice].id != event.id || running_[choice].ended) continue;
      updates.push_back(take(choice, std::move(event)));
      break;
    }
  }
  return updates;
}

ChoiceUpdate Completion::take(int choice, engine::Event event) {
  Running& running = running_[choice];
  ChoiceUpdate update;
  update.choice = choice;
  update.started = event.started;
  update.prompt = std::move(event.prompt);
  update.pieces = running.text->push(event);
  if (plan_.tell_tokens) {
    for (const engine::TokenEvent& token : event.tokens) update.tokens.push_back(token.token);
  }
  running.usage = event.usage;
  running.usage.prompt_tokens -= resumed();
  running.usage.cached_tokens = std::min(running.usage.cached_tokens, running.usage.prompt_tokens);
  running.usage.completion_tokens += resumed();
  running.emitted |= !event.tokens.empty();
  if (running.text->stopped()) {
    if (event.finish == engine::FinishReason::kNone) model_->engine().cancel(running.id);
    end(update, running, engine::FinishReason::kStop);
  } else if (event.finish != engine::FinishReason::kNone) {
    end(update, running, event.finish);
  }
  return update;
}

void Completion::end(ChoiceUpdate& update, Running& running, engine::FinishReason reason) {
  running.ended = true;
  ++ended_;
  switch (reason) {
    case engine::FinishReason::kNone:
    case engine::FinishReason::kStop:
      update.finish = running.text->tool_calls() > 0 ? api::FinishReason::kToolCalls : api::FinishReason::kStop;
      update.stop_sequence = running.text->stop_sequence();
      break;
    case engine::FinishReason::kLength:
      update.finish = api::FinishReason::kLength;
      break;
    case engine::FinishReason::kDeadline:
      update.error = ApiError{
          ErrorKind::kDeadline,
          fmt::format("The request's deadline passed after {} tokens of output.", running.usage.completion_tokens), "",
          "deadline_exceeded"};
      break;
    case engine::FinishReason::kFailed:
      if (running.emitted) {
        update.finish = api::FinishReason::kInsufficientSystemResource;
      } else {
        update.error = ApiError{ErrorKind::kOverloaded, "The model could not go on for lack of resources.", "",
                                "insufficient_system_resource"};
      }
      break;
    case engine::FinishReason::kCancelled:
      update.error =
          cancelled_ ? ApiError{ErrorKind::kCancelled, "The request was cancelled.", "", ""}
                     : ApiError{ErrorKind::kOverloaded, "The server stopped before the answer was complete.", "", ""};
      break;
  }
}

void Completion::cancel() {
  cancelled_ = true;
  for (const Running& running : running_) model_->engine().cancel(running.id);
}

api::Usage Completion::usage() const {
  api::Usage total;
  for (int choice = 0; choice < choices(); ++choice) {
    const Running& running = running_[choice];
    if (choice % plan_.n == 0) {  // a prompt counts once, however many choices it has
      total.prompt_tokens += running.usage.prompt_tokens;
      total.cached_tokens += running.usage.cached_tokens;
    }
    total.completion_tokens += running.usage.completion_tokens;
    total.reasoning_tokens += running.text->reasoning_tokens();
    total.draft_tokens += running.usage.draft_tokens;
    total.accepted_tokens += running.usage.accepted_tokens;
  }
  return total;
}

void CollectedChoice::add(ChoiceUpdate update) {
  for (TextPiece& piece : update.pieces) {
    switch (piece.delta.kind) {
      case Kind::kReasoning:
        reasoning += piece.delta.text;
        std::move(piece.logprobs.begin(), piece.logprobs.end(), std::back_inserter(reasoning_logprobs));
        continue;
      case Kind::kContent:
        content += piece.delta.text;
        break;
      case Kind::kToolCall:
        if (tool_calls.size() <= static_cast<size_t>(piece.delta.tool_index))
          tool_calls.resize(piece.delta.tool_index + 1);
        if (!piece.delta.tool_name.empty()) tool_calls[piece.delta.tool_index].name = piece.delta.tool_name;
        tool_calls[piece.delta.tool_index].arguments += piece.delta.text;
        break;
    }
    std::move(piece.logprobs.begin(), piece.logprobs.end(), std::back_inserter(logprobs));
  }
  std::move(update.prompt.begin(), update.prompt.end(), std::back_inserter(prompt));
  if (update.finish) finish = update.finish;
  if (update.error) error = std::move(update.error);
  if (!update.stop_sequence.empty()) stop_sequence = std::move(update.stop_sequence);
}

std::vector<CollectedChoice> run(Completion& completion) {
  std::vector<CollectedChoice> choices(completion.choices());
  while (!completion.finished()) {
    completion.wait_until(TimePoint::max());
    for (ChoiceUpdate& update : completion.poll()) {
      const int choice = update.choice;
      choices[choice].add(std::move(update));
    }
  }
  return choices;
}

}  // namespace spillway::server
