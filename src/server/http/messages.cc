// POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect.
#include <optional>
#include <utility>

#include "api/anthropic.h"
#include "net/sse.h"
#include "server/http/aside.h"
#include "server/http/find_model.h"
#include "server/http/generate.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

class MessagesReply final : public Reply {
 public:
  MessagesReply(const api::ChatRequest& request, const ServedModel& model)
      : head_{random_id("msg_"), unix_seconds(), request.model, model.fingerprint()},
        streams_(request.stream.stream),
        stream_(head_) {}

  bool streams() const override { return streams_; }

  void update(const ChoiceUpdate& update, const Completion& completion, std::string& out) override {
    if (!begun_ && (update.started || !update.pieces.empty() || update.finish)) {
      begun_ = true;
      append(stream_.start(completion.usage()), out);
    }
    for (const TextPiece& piece : update.pieces) append(stream_.push(piece.delta), out);
    if (update.finish) append(stream_.finish(*update.finish, stop_of(update.stop_sequence), completion.usage()), out);
  }

  void end(const Completion&, std::string&) override {}

  void keep_alive(std::string& out) override {
    // A ping may only come after message_start.
    if (begun_) {
      append({api::MessageStream::ping()}, out);
    } else {
      net::append_sse_comment(out, "keep-alive");
    }
  }

  void fail(const api::ApiError& error, std::string& out) override { append({api::MessageStream::error(error)}, out); }

  std::string whole(const Completion& completion, std::vector<CollectedChoice> collected) override {
    CollectedChoice& from = collected.front();
    api::ChatChoice choice;
    choice.content = std::move(from.content);
    if (!from.reasoning.empty()) choice.reasoning_content = std::move(from.reasoning);
    choice.tool_calls = std::move(from.tool_calls);
    for (size_t i = 0; i < choice.tool_calls.size(); ++i) {
      choice.tool_calls[i].id = api::tool_call_id(head_.id, 0, static_cast<int>(i));
    }
    choice.finish_reason = from.finish.value_or(api::FinishReason::kStop);
    return api::messages_response(head_, choice, stop_of(from.stop_sequence), completion.usage());
  }

 private:
  static std::optional<std::string> stop_of(const std::string& stop) {
    return stop.empty() ? std::nullopt : std::optional<std::string>(stop);
  }

  static void append(const std::vector<api::StreamEvent>& events, std::string& out) {
    for (const api::StreamEvent& event : events) net::append_sse_event(out, event.data, event.event);
  }

  api::ResponseHead head_;
  bool streams_;
  api::MessageStream stream_;
  bool begun_ = false;
};

// As DeepSeek's endpoint does: Claude's names mean the default model, so that its clients work unconfigured.
std::string messages_model(const Server& server, const std::string& name) {
  const auto catalogue = server.catalogue();
  if (!name.starts_with("claude") || catalogue->contains(name)) return name;
  const std::string stands_in = default_language(*catalogue);
  return stands_in.empty() ? name : stands_in;
}

}  // namespace

asio::awaitable<void> messages(Exchange& exchange) {
  Server& server = exchange.server();
  api::Parsed<api::ChatRequest> parsed = api::parse_messages_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::ChatRequest>(std::move(parsed).value());
  LanguagePtr model = co_await find_language(exchange, messages_model(server, request->model), request->deadline_ms);
  if (!model) co_return;
  MessagesReply reply(*request, *model);
  PlanJob job{[model, request] { return plan_chat(*model, *request); }, request->deadline_ms, is_constrained(*request)};
  co_await generate(exchange, model, std::move(job), reply);
}

asio::awaitable<void> count_tokens(Exchange& exchange) {
  api::Parsed<api::ChatRequest> request = api::parse_count_tokens_request(exchange.request().body);
  if (!request.ok()) {
    co_await exchange.send_error(request.error());
    co_return;
  }
  LanguagePtr model = co_await find_language(exchange, messages_model(exchange.server(), request->model));
  if (!model) co_return;
  std::function<api::Parsed<PromptIds>()> make = [model, request = std::move(request).value()] {
    return chat_prompt(*model, request);
  };
  const auto prompt = co_await make_here_or_aside<api::Parsed<PromptIds>>(exchange, std::move(make));
  if (!prompt.ok()) {
    co_await exchange.send_error(prompt.error());
    co_return;
  }
  co_await exchange.send_json(200, api::count_tokens_response(static_cast<int>(prompt->ids.size())));
}

}  // namespace spillway::server
