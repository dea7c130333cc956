#include "server/grpc/chat_service.h"

#include <boost/asio/post.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "server/admission.h"
#include "server/grpc/chat_messages.h"
#include "server/grpc/rpc_account.h"
#include "server/http/exchange.h"
#include "server/http/find_model.h"
#include "server/http/generate.h"
#include "server/plan.h"

namespace spillway::server {
namespace {

using spillway::v1::ChatChunk;
using spillway::v1::ChatRequest;
using spillway::v1::ChatResponse;

// One chat call under way. What to do with its updates is the derived class'. Its events are taken on the workers, one
// at a time; it lives until the reactor's OnDone has dropped it and no job is left.
class ChatCall : public std::enable_shared_from_this<ChatCall> {
 public:
  ChatCall(RpcShared& shared, grpc::CallbackServerContext& context, const ChatRequest& request, const RpcMethod& method)
      : shared_(shared),
        request_(request),
        deadline_(deadline_of(context)),
        account_(shared.server, context, method, request.ByteSizeLong()),
        in_flight_(shared.server) {
    if (const auto& timeline = account_.request().timeline()) timeline->answers_as(id_);
  }
  virtual ~ChatCall() = default;

  // Plans and submits aside: templates, tokens and grammars take their time.
  void start() {
    boost::asio::post(shared_.aside, [self = shared_from_this()] { self->find_model(); });
  }

  void cancel() {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (completion_) completion_->cancel();
  }

 protected:
  // With mutex_ held.
  virtual void take(ChoiceUpdate update) = 0;
  virtual void complete() = 0;  // every choice has ended: fills the answer
  virtual void finish(const grpc::Status& status) = 0;

  const std::string& id() const { return id_; }
  const std::string& model_name() const { return request_.model(); }

  RpcShared& shared_;
  std::mutex mutex_;
  std::unique_ptr<Completion> completion_;

 private:
  // Brings an evicted model back, which does not keep a thread.
  void find_model() {
    if (!in_flight_) {
      const auto refused = check_state(shared_.server);
      return end_with_lock(refused ? *refused : end_of(stopping()));
    }
    auto catalogue = shared_.server.catalogue();
    auto found = [self = shared_from_this(), catalogue](Result<LanguagePtr> model) {
      boost::asio::post(self->shared_.aside, [self, catalogue, model = std::move(model)] {
        const std::string& name = self->request_.model();
        if (model.ok()) return self->run(*model);
        const bool unknown = model.error().code == ErrorCode::kNotFound;
        self->end_with_lock(unknown ? end_of(model_not_found(name))
                                    : end_of(not_ready(*catalogue, name, model.error())));
      });
    };
    if (LanguagePtr model = catalogue->find_language(request_.model())) return run(std::move(model));
    catalogue->acquire_language(request_.model(), deadline_, std::move(found));
  }

  void run(LanguagePtr model) {
    std::lock_guard lock(mutex_);
    const std::optional<RpcEnd> refused = submit(std::move(model));
    if (refused) end(*refused);
  }

  void end_with_lock(RpcEnd why) {
    std::lock_guard lock(mutex_);
    end(std::move(why));
  }

  // Nothing when it was taken.
  std::optional<RpcEnd> submit(LanguagePtr model) {
    auto request = chat_request_of(request_);
    if (!request.ok()) return end_of(request.error());
    account_.request().set_model(model->name(), model->fingerprint());
    if (auto refused = refused_by_state(model->engine().state(), shared_.server.hot()->admission)) {
      return end_of(*refused);
    }
    auto plan = plan_chat(*model, *request);
    if (!plan.ok()) return end_of(plan.error());
    plan->deadline = std::min(plan->deadline, deadline_);
    plan->timeline = account_.request().timeline();
    auto started = Completion::start(std::move(model), std::move(*plan), [weak = weak_from_this()] {
      if (auto self = weak.lock()) self->post_pump();
    });
    if (auto* refused = std::get_if<Refused>(&started)) return end_of(*refused);
    completion_ = std::move(std::get<std::unique_ptr<Completion>>(started));
    if (cancelled_) completion_->cancel();
    pump();
    return std::nullopt;
  }

  // Tells the records before the client, whose feedback may come at once.
  void end(RpcEnd end) {
    if (completion_) account_.request().note_usage(completion_->usage());
    if (cancelled_ && end.status.ok()) {
      end = end_of(api::ApiError{api::ErrorKind::kCancelled, "the client left", "", ""});
    }
    account_.end(end);
    finish(end.status);
  }

  void post_pump() {
    boost::asio::post(shared_.workers, [self = shared_from_this()] {
      std::lock_guard lock(self->mutex_);
      self->pump();
    });
  }

  void pump() {
    if (!completion_ || ended_) return;
    for (ChoiceUpdate& update : completion_->poll()) {
      if (update.error) {
        ended_ = true;
        completion_->cancel();
        return end(end_of(*update.error));
      }
      if (!update.pieces.empty()) account_.request().first_token();
      if (update.finish) account_.request().record().finish_reason = api::finish_reason_name(*update.finish);
      take(std::move(update));
    }
    if (!completion_->finished()) return;
    ended_ = true;
    complete();
    end({});
  }

  const ChatRequest& request_;
  const TimePoint deadline_;
  const std::string id_ = random_id("chatcmpl-");
  RpcAccount account_;
  InFlight in_flight_;
  bool cancelled_ = false;
  bool ended_ = false;
};

class WholeChat final : public grpc::ServerUnaryReactor {
 public:
  WholeChat(RpcShared& shared, grpc::CallbackServerContext& context, const ChatRequest& request, ChatResponse& response)
      : call_(std::make_shared<Call>(*this, shared, context, request, response)) {}

  void start() { call_->start(); }
  void OnCancel() override { call_->cancel(); }
  void OnDone() override { delete this; }

 private:
  class Call final : public ChatCall {
   public:
    Call(WholeChat& reactor, RpcShared& shared, grpc::CallbackServerContext& context, const ChatRequest& request,
         ChatResponse& response)
        : ChatCall(shared, context, request, kChatComplete), reactor_(reactor), response_(response) {}

   private:
    void take(ChoiceUpdate update) override {
      choices_.resize(completion_->choices());
      const int choice = update.choice;
      choices_[choice].add(std::move(update));
    }
    void complete() override {
      response_.set_id(id());
      response_.set_model(model_name());
      response_.set_created(unix_seconds());
      for (size_t i = 0; i < choices_.size(); ++i) {
        fill(id(), static_cast<int>(i), std::move(choices_[i]), *response_.add_choices());
      }
      fill(completion_->usage(), *response_.mutable_usage());
    }
    void finish(const grpc::Status& status) override { reactor_.Finish(status); }

    WholeChat& reactor_;
    ChatResponse& response_;
    std::vector<CollectedChoice> choices_;
  };

  std::shared_ptr<Call> call_;
};

class StreamedChat final : public grpc::ServerWriteReactor<ChatChunk> {
 public:
  StreamedChat(RpcShared& shared, grpc::CallbackServerContext& context, const ChatRequest& request)
      : call_(std::make_shared<Call>(*this, shared, context, request)) {}

  void start() { call_->start(); }
  void OnWriteDone(bool ok) override { call_->written(ok); }
  void OnCancel() override { call_->cancel(); }
  void OnDone() override { delete this; }

 private:
  class Call final : public ChatCall {
   public:
    Call(StreamedChat& reactor, RpcShared& shared, grpc::CallbackServerContext& context, const ChatRequest& request)
        : ChatCall(shared, context, request, kChatStream), reactor_(reactor) {}

    void written(bool ok) {
      std::lock_guard lock(mutex_);
      writing_ = false;
      chunks_.pop_front();
      if (!ok && completion_) completion_->cancel();
      proceed();
    }

   private:
    ChatChunk& chunk(int choice) {
      ChatChunk& out = chunks_.emplace_back();
      out.set_id(id());
      out.set_model(model_name());
      out.set_choice(choice);
      return out;
    }

    void take(ChoiceUpdate update) override {
      using Kind = text::OutputDelta::Kind;
      for (TextPiece& piece : update.pieces) {
        text::OutputDelta& delta = piece.delta;
        ChatChunk& out = chunk(update.choice);
        if (delta.kind == Kind::kReasoning) {
          out.set_reasoning_content(std::move(delta.text));
        } else if (delta.kind == Kind::kContent) {
          out.set_content(std::move(delta.text));
        } else {
          auto* call = out.mutable_tool_call();
          call->set_index(delta.tool_index);
          if (!delta.tool_name.empty()) call->set_id(api::tool_call_id(id(), update.choice, delta.tool_index));
          call->set_name(std::move(delta.tool_name));
          call->set_arguments(std::move(delta.text));
        }
      }
      if (update.finish) chunk(update.choice).set_finish_reason(finish_reason_of(*update.finish));
      proceed();
    }

    void complete() override { fill(completion_->usage(), *chunk(0).mutable_usage()); }

    void finish(const grpc::Status& status) override {
      end_ = status;
      proceed();
    }

    // Writes the next chunk, or the status once all are written.
    void proceed() {
      if (writing_ || finished_) return;
      if (!chunks_.empty()) {
        writing_ = true;
        reactor_.StartWrite(&chunks_.front());
      } else if (end_) {
        finished_ = true;
        reactor_.Finish(*end_);
      }
    }

    StreamedChat& reactor_;
    std::deque<ChatChunk> chunks_;  // the first is being written
    bool writing_ = false, finished_ = false;
    std::optional<grpc::Status> end_;
  };

  std::shared_ptr<Call> call_;
};

class RejectedChat final : public grpc::ServerWriteReactor<ChatChunk> {
 public:
  explicit RejectedChat(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerUnaryReactor* ChatService::Complete(grpc::CallbackServerContext* context, const ChatRequest* request,
                                                ChatResponse* response) {
  if (const auto wrong = check_key(shared_.server, *context)) {
    RpcAccount(shared_.server, *context, kChatComplete, request->ByteSizeLong()).end(*wrong);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(wrong->status);
    return reactor;
  }
  auto* reactor = new WholeChat(shared_, *context, *request, *response);
  reactor->start();
  return reactor;
}

grpc::ServerWriteReactor<ChatChunk>* ChatService::Stream(grpc::CallbackServerContext* context,
                                                         const ChatRequest* request) {
  if (const auto wrong = check_key(shared_.server, *context)) {
    RpcAccount(shared_.server, *context, kChatStream, request->ByteSizeLong()).end(*wrong);
    return new RejectedChat(wrong->status);
  }
  auto* reactor = new StreamedChat(shared_, *context, *request);
  reactor->start();
  return reactor;
}

}  // namespace spillway::server
