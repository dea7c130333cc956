// POST /v1/chat/completions.
#include "api/chat.h"

#include <optional>
#include <utility>

#include "metrics/timeline.h"
#include "net/sse.h"
#include "server/http/generate.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

class ChatReply final : public OpenAiReply {
 public:
  ChatReply(const api::ChatRequest& request, const ServedModel& model)
      : head_{random_id("chatcmpl-"), unix_seconds(), request.model, model.fingerprint()},
        stream_(request.stream),
        logprobs_(request.logprobs),
        reasoning_(model.reasons()),
        chunks_(head_, request.stream.include_usage, model.reasons()) {}

  const std::string& id() const { return head_.id; }
  bool streams() const override { return stream_.stream; }

  void update(const ChoiceUpdate& update, const Completion& completion, std::string& out) override {
    if (begun_.empty()) begun_.resize(completion.choices());
    if (!begun_[update.choice] && (update.started || !update.pieces.empty() || update.finish)) {
      begun_[update.choice] = true;
      net::append_sse_event(out, chunks_.first(update.choice));
    }
    for (const TextPiece& piece : update.pieces) {
      api::ChatDelta delta{update.choice, piece.delta, std::nullopt};
      if (logprobs_) delta.logprobs = piece.logprobs;
      net::append_sse_event(out, chunks_.delta(delta));
    }
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
  api::ChatChunks chunks_;
  std::vector<bool> begun_;
  int finished_ = 0;
};

}  // namespace

asio::awaitable<void> chat_completions(Exchange& exchange) {
  Server& server = exchange.server();
  if (auto refused = refused_now(server)) {
    co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  const api::ChatParseOptions options{server.options().strict_reasoning_content};
  api::Parsed<api::ChatRequest> parsed = api::parse_chat_request(exchange.request().body, options);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::ChatRequest>(std::move(parsed).value());
  std::shared_ptr<ServedModel> model = server.find_model(request->model);
  if (!model) {
    co_await exchange.send_error(model_not_found(request->model));
    co_return;
  }
  ChatReply reply(*request, *model);
  if (const auto& timeline = exchange.request().timeline) timeline->answers_as(reply.id());
  PlanJob job{[model, request] { return plan_chat(*model, *request); }, request->deadline_ms, is_constrained(*request)};
  co_await generate(exchange, model, std::move(job), reply);
}

}  // namespace spillway::server
