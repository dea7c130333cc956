// POST /v1/chat/completions.
#include "api/chat.h"

#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "metrics/timeline.h"
#include "net/sse.h"
#include "server/http/find_model.h"
#include "server/http/generate.h"
#include "server/http/routes.h"
#include "server/resume.h"

namespace spillway::server {
namespace {

constexpr uint64_t kSeedMax = (uint64_t{1} << 53) - 1;  // what JSON's numbers carry exactly everywhere

uint64_t random_seed() {
  thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator() & kSeedMax;
}

// The plan of an answer that may be resumed elsewhere, or is resumed here.
api::Parsed<Plan> plan_resumable(const ServedModel& model, const api::ChatRequest& request,
                                 const std::optional<ResumePoint>& point) {
  api::Parsed<Plan> planned = plan_chat(model, request);
  if (!planned.ok()) return planned;
  planned->tell_tokens = true;
  if (!point) return planned;
  for (const int32_t token : point->tokens) {
    if (token >= model.vocab_size())
      return api::ApiError{api::ErrorKind::kInvalidFormat, "A token is outside the vocabulary.",
                           std::string(kResumeMember), ""};
  }
  if (static_cast<int>(point->tokens.size()) >= planned->max_tokens[0]) {
    return api::ApiError{api::ErrorKind::kInvalidFormat, "Nothing is left of max_tokens.", std::string(kResumeMember),
                         ""};
  }
  planned->resumed = point->tokens;
  return planned;
}

class ChatReply final : public OpenAiReply {
 public:
  // marks: the client wants to be able to have the stream resumed elsewhere; point: where it is resumed here.
  ChatReply(const api::ChatRequest& request, const ServedModel& model, bool marks,
            const std::optional<ResumePoint>& point)
      : head_{point ? point->id : random_id("chatcmpl-"), point ? point->created : unix_seconds(), request.model,
              model.fingerprint()},
        stream_(request.stream),
        logprobs_(request.logprobs),
        reasoning_(model.reasons()),
        marks_(marks),
        seed_(request.sampling.seed.value_or(0)),
        chunks_(head_, request.stream.include_usage, model.reasons()) {}

  const std::string& id() const { return head_.id; }
  bool streams() const override { return stream_.stream; }

  void update(const ChoiceUpdate& update, const Completion& completion, std::string& out) override {
    if (begun_.empty()) begun_.resize(completion.choices());
    if (!begun_[update.choice] && (update.started || !update.pieces.empty() || update.finish)) {
      begun_[update.choice] = true;
      net::append_sse_event(out, chunks_.first(update.choice));
      if (marks_) net::append_sse_comment(out, first_marker({head_.id, head_.created, seed_, {}}));
    }
    for (const TextPiece& piece : update.pieces) {
      api::ChatDelta delta{update.choice, piece.delta, std::nullopt};
      if (logprobs_) delta.logprobs = piece.logprobs;
      net::append_sse_event(out, chunks_.delta(delta));
    }
    if (marks_ && !update.tokens.empty()) net::append_sse_comment(out, marker(update.tokens));
    if (!update.finish) return;
    // DeepSeek's clients look for usage on the last finish chunk, OpenAI's in a chunk of its own when they asked for
    // it.
    const bool last = ++finished_ == completion.choices();
    const api::Usage usage = completion.usage();
    net::append_sse_event(
        out, chunks_.finish(update.choice, *update.finish, last && !stream_.include_usage ? &usage : nullptr));
  }

  void end(const Completion& completion, std::string& out) override {
    if (stream_.include_usage) net::append_sse_event(out, chunks_.usage(completion.usage()));
    net::append_sse_event(out, "[DONE]");
  }

  std::string whole(const Completion& completion, std::vector<CollectedChoice> collected) override {
    std::vector<api::ChatChoice> choices;
    for (CollectedChoice& from : collected) {
      api::ChatChoice choice;
      choice.index = static_cast<int>(choices.size());
      choice.content = std::move(from.content);
      if (reasoning_) choice.reasoning_content = std::move(from.reasoning);
      choice.tool_calls = std::move(from.tool_calls);
      for (size_t i = 0; i < choice.tool_calls.size(); ++i) {
        choice.tool_calls[i].id = api::tool_call_id(head_.id, choice.index, static_cast<int>(i));
      }
      if (logprobs_) {
        choice.logprobs = std::move(from.logprobs);
        choice.reasoning_logprobs = std::move(from.reasoning_logprobs);
      }
      choice.finish_reason = from.finish.value_or(api::FinishReason::kStop);
      choices.push_back(std::move(choice));
    }
    return api::chat_response(head_, choices, completion.usage());
  }

 private:
  api::ResponseHead head_;
  api::StreamOptions stream_;
  bool logprobs_;
  bool reasoning_;
  bool marks_;
  uint64_t seed_;
  api::ChatChunks chunks_;
  std::vector<bool> begun_;
  int finished_ = 0;
};

}  // namespace

asio::awaitable<void> chat_completions(Exchange& exchange) {
  Server& server = exchange.server();
  const api::ChatParseOptions options{server.options().strict_reasoning_content};
  api::Parsed<api::ChatRequest> parsed = api::parse_chat_request(exchange.request().body, options);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto point = parse_resume(exchange.request().body);
  if (!point.ok()) {
    co_await exchange.send_error(point.error());
    co_return;
  }
  auto wanted = std::make_shared<api::ChatRequest>(std::move(parsed).value());
  const bool marks =
      exchange.request().headers.contains(kResumeHeader) && wanted->stream.stream && wanted->sampling.n == 1;
  const bool resumable = marks || point->has_value();
  if (point->has_value()) wanted->sampling.seed = (*point)->seed;
  if (marks && !wanted->sampling.seed) wanted->sampling.seed = random_seed();
  const std::shared_ptr<const api::ChatRequest> request = std::move(wanted);
  LanguagePtr model = co_await find_language(exchange, request->model, request->deadline_ms);
  if (!model) co_return;
  ChatReply reply(*request, *model, marks, *point);
  if (const auto& timeline = exchange.request().timeline) timeline->answers_as(reply.id());
  std::function<api::Parsed<Plan>()> plan = [model, request] { return plan_chat(*model, *request); };
  if (resumable) plan = [model, request, from = *point] { return plan_resumable(*model, *request, from); };
  PlanJob job{std::move(plan), request->deadline_ms, is_constrained(*request)};
  co_await generate(exchange, model, std::move(job), reply);
}

}  // namespace spillway::server
