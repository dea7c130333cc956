// POST /v1/completions: raw prompts, echo, logprobs, fill-in-the-middle.
#include "api/completions.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "net/sse.h"
#include "server/http/find_model.h"
#include "server/http/generate.h"
#include "server/http/routes.h"

namespace spillway::server {
namespace {

constexpr int kOpenAiMaxTokens = 16;  // OpenAI's default for this endpoint, which harnesses count on

int code_points(std::string_view bytes) {
  return static_cast<int>(
      std::ranges::count_if(bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

class CompletionReply final : public OpenAiReply {
 public:
  CompletionReply(std::shared_ptr<const api::CompletionRequest> request, const ServedModel& model)
      : head_{random_id("cmpl-"), unix_seconds(), request->model, model.fingerprint()},
        request_(std::move(request)),
        tokenizer_(model.tokenizer()) {}

  bool streams() const override { return request_->stream.stream; }

  void update(const ChoiceUpdate& update, const Completion& completion, std::string& out) override {
    prepare(completion.choices());
    if (request_->echo && !echoed_[update.choice] && ready_to_echo(update, completion.plan())) {
      echoed_[update.choice] = true;
      auto logprobs = prompt_logprobs(update.choice, update.prompt);
      append_chunk(update.choice, echo_text(update.choice, completion.plan()), logprobs, out);
    }
    for (const TextPiece& piece : update.pieces) {
      auto logprobs = token_logprobs(update.choice, piece.logprobs);
      append_chunk(update.choice, piece.delta.text, logprobs, out);
    }
    if (!update.finish) return;
    const bool last = ++finished_ == completion.choices();
    const api::Usage usage = completion.usage();
    const bool here = last && !request_->stream.include_usage;
    net::append_sse_event(out, api::completion_finish_chunk(head_, update.choice, *update.finish,
                                                            here ? &usage : nullptr, request_->stream.include_usage));
  }

  void end(const Completion& completion, std::string& out) override {
    if (request_->stream.include_usage)
      net::append_sse_event(out, api::completion_usage_chunk(head_, completion.usage()));
    net::append_sse_event(out, "[DONE]");
  }

  std::string whole(const Completion& completion, std::vector<CollectedChoice> collected) override {
    prepare(completion.choices());
    std::vector<api::CompletionChoice> choices;
    for (CollectedChoice& from : collected) {
      api::CompletionChoice choice;
      choice.index = static_cast<int>(choices.size());
      if (request_->echo) choice.text = echo_text(choice.index, completion.plan());
      choice.text += from.content;
      if (request_->logprobs) {
        choice.logprobs = prompt_logprobs(choice.index, from.prompt);
        auto generated = token_logprobs(choice.index, from.logprobs);
        std::ranges::move(generated, std::back_inserter(*choice.logprobs));
      }
      choice.finish_reason = from.finish.value_or(api::FinishReason::kStop);
      choices.push_back(std::move(choice));
    }
    return api::completion_response(head_, choices, completion.usage());
  }

 private:
  void prepare(int choices) {
    offsets_.resize(choices, 0);
    echoed_.resize(choices, false);
  }

  static bool ready_to_echo(const ChoiceUpdate& update, const Plan& plan) {
    return plan.prompt_logprobs ? !update.prompt.empty() : true;
  }

  std::string echo_text(int choice, const Plan& plan) const {
    const size_t index = choice / plan.n;
    if (const auto* text = std::get_if<std::string>(&request_->prompts[index])) return *text;
    return tokenizer_.decode(plan.prompts[index].ids, true);
  }

  void append_chunk(int choice, std::string_view text, const std::vector<api::CompletionLogprob>& logprobs,
                    std::string& out) {
    net::append_sse_event(out, api::completion_chunk(head_, choice, text, request_->logprobs ? &logprobs : nullptr,
                                                     request_->stream.include_usage));
  }

  // The prompt's first token follows nothing, so nothing is known of it.
  std::vector<api::CompletionLogprob> prompt_logprobs(int choice, const std::vector<engine::TokenEvent>& tokens) {
    std::vector<api::CompletionLogprob> out;
    for (const engine::TokenEvent& token : tokens) {
      api::CompletionLogprob entry{server::token_logprobs(tokenizer_, token), !out.empty(), offsets_[choice]};
      if (!tokenizer_.is_special(token.token)) offsets_[choice] += code_points(entry.token.bytes);
      out.push_back(std::move(entry));
    }
    return out;
  }

  std::vector<api::CompletionLogprob> token_logprobs(int choice, const std::vector<api::TokenLogprobs>& tokens) {
    std::vector<api::CompletionLogprob> out;
    for (const api::TokenLogprobs& token : tokens) {
      out.push_back({token, true, offsets_[choice]});
      offsets_[choice] += code_points(token.bytes);
    }
    return out;
  }

  api::ResponseHead head_;
  std::shared_ptr<const api::CompletionRequest> request_;
  const text::Tokenizer& tokenizer_;
  std::vector<int> offsets_;  // characters of each choice's text so far
  std::vector<bool> echoed_;
  int finished_ = 0;
};

asio::awaitable<void> complete(Exchange& exchange, int max_tokens_default) {
  api::Parsed<api::CompletionRequest> parsed = api::parse_completion_request(exchange.request().body);
  if (!parsed.ok()) {
    co_await exchange.send_error(parsed.error());
    co_return;
  }
  auto request = std::make_shared<const api::CompletionRequest>(std::move(parsed).value());
  LanguagePtr model = co_await find_language(exchange, request->model, request->deadline_ms);
  if (!model) co_return;
  CompletionReply reply(request, *model);
  PlanJob job{[model, request, max_tokens_default] { return plan_completion(*model, *request, max_tokens_default); },
              request->deadline_ms, request->format.kind != api::ResponseFormat::Kind::kText};
  co_await generate(exchange, model, std::move(job), reply);
}

}  // namespace

asio::awaitable<void> completions(Exchange& exchange) { return complete(exchange, kOpenAiMaxTokens); }
asio::awaitable<void> beta_completions(Exchange& exchange) { return complete(exchange, 0); }

}  // namespace spillway::server
