#include "apps/chat_source.h"
#include "base/clock.h"
#include "server/completion.h"
#include "server/plan.h"

namespace spillway::apps {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(100);

api::ChatRequest chat_request(const std::vector<ChatTurn>& turns, const AskOptions& options) {
  api::ChatRequest request;
  for (const auto& turn : turns) {
    api::Message message;
    message.role = turn.role == "system"      ? api::Role::kSystem
                   : turn.role == "assistant" ? api::Role::kAssistant
                                              : api::Role::kUser;
    message.content = turn.content;
    request.messages.push_back(std::move(message));
  }
  request.sampling.temperature = options.temperature;
  request.sampling.top_p = options.top_p;
  request.sampling.seed = options.seed;
  request.sampling.max_tokens = options.max_tokens;
  return request;
}

class LocalSource : public ChatSource {
 public:
  explicit LocalSource(std::shared_ptr<server::ServedModel> model) : model_(std::move(model)) {}

  std::string name() const override { return model_->name(); }

  Result<Answer> ask(const std::vector<ChatTurn>& turns, const AskOptions& options, const OnText& on_text) override {
    auto plan = server::plan_chat(*model_, chat_request(turns, options));
    if (!plan.ok()) return api::to_error(plan.error());
    auto started = server::Completion::start(model_, std::move(plan).value());
    if (const auto* refused = std::get_if<server::Refused>(&started)) return api::to_error(refused->error);
    auto& completion = *std::get<std::unique_ptr<server::Completion>>(started);
    server::CollectedChoice collected;
    bool wanted = true;
    while (!completion.finished()) {
      completion.wait_until(std::chrono::steady_clock::now() + kPollInterval);
      bool told = false;
      for (auto& update : completion.poll()) {
        for (const auto& piece : update.pieces) {
          if (!wanted || piece.delta.kind == text::OutputDelta::Kind::kToolCall) continue;
          wanted = on_text(piece.delta.kind == text::OutputDelta::Kind::kReasoning, piece.delta.text);
          told = true;
        }
        collected.add(std::move(update));
      }
      if (wanted && !told) wanted = on_text(false, "");
      if (!wanted) completion.cancel();
    }
    if (collected.error && wanted) return api::to_error(*collected.error);
    return Answer{std::move(collected.reasoning), std::move(collected.content),
                  collected.finish ? std::string(api::finish_reason_name(*collected.finish)) : "cancelled",
                  completion.usage()};
  }

 private:
  std::shared_ptr<server::ServedModel> model_;
};

}  // namespace

std::unique_ptr<ChatSource> local_source(std::shared_ptr<server::ServedModel> model) {
  return std::make_unique<LocalSource>(std::move(model));
}

}  // namespace spillway::apps
