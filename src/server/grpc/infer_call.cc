#include "server/grpc/infer_call.h"

#include <boost/asio/post.hpp>
#include <thread>
#include <utility>

#include "server/grpc/infer_messages.h"
#include "server/http/find_model.h"
#include "server/kserve/infer.h"

namespace spillway::server {

using api::ApiError;
using api::ErrorKind;

namespace {

// A request over this takes long enough to tokenise or decode that gRPC's threads should go on with other calls.
constexpr size_t kAsideBytes = 16 << 10;

}  // namespace

ApiError unknown_model(const Server& server, const std::string& name, const std::string& version) {
  const std::string shown = "'" + api::utf8_lossy(name) + "'";
  const auto catalogue = server.catalogue();
  if (!catalogue->contains(name)) {
    return {ErrorKind::kNotFound, "unknown model " + shown, "", ""};
  }
  if (catalogue->kind(name) == ModelKind::kLanguage)
    return {ErrorKind::kUnsupported, "the model " + shown + " is a language model", "", ""};
  std::string reason;
  for (const CatalogueEntry& entry : catalogue->index()) {
    if (entry.name == name && (version.empty() || version == entry.version) && !entry.reason.empty())
      reason = entry.reason;
  }
  if (reason.empty() && !version.empty()) {
    return {ErrorKind::kNotFound, "the model " + shown + " has no ready version '" + api::utf8_lossy(version) + "'", "",
            ""};
  }
  return {ErrorKind::kOverloaded, "the model " + shown + " is not ready: " + reason, "", ""};
}

InferCall::InferCall(RpcShared& shared, std::unique_ptr<RpcAccount> account,
                     const inference::ModelInferRequest& request, inference::ModelInferResponse& response,
                     TimePoint deadline, Done done)
    : shared_(shared),
      account_(std::move(account)),
      request_(request),
      response_(response),
      deadline_(deadline),
      done_(std::move(done)),
      in_flight_(shared.server) {}

void InferCall::start() {
  if (!in_flight_) {
    const auto refused = check_state(shared_.server);
    return end(refused ? *refused : end_of(stopping()));
  }
  const auto catalogue = shared_.server.catalogue();
  if (OneShotPtr model = catalogue->find(request_.model_name(), request_.model_version())) return run(std::move(model));
  auto self = shared_from_this();
  catalogue->acquire(
      request_.model_name(), request_.model_version(), deadline_, [self, catalogue](Result<OneShotPtr> found) {
        if (found.ok()) return self->run(std::move(found).value());
        const inference::ModelInferRequest& request = self->request_;
        if (found.error().code != ErrorCode::kNotFound)
          return self->refuse(not_ready(*catalogue, request.model_name(), found.error()));
        self->end(end_of(unknown_model(self->shared_.server, request.model_name(), request.model_version())));
      });
}

void InferCall::run(OneShotPtr model) {
  if (request_.ByteSizeLong() <= kAsideBytes) return prepare(std::move(model));
  boost::asio::post(shared_.aside, [self = shared_from_this(), model = std::move(model)] { self->prepare(model); });
}

void InferCall::prepare(OneShotPtr model) {
  account_->request().set_model(model->name(), model->version());
  if (const auto& timeline = account_->request().timeline(); timeline && !request_.id().empty()) {
    timeline->answers_as(request_.id());
  }
  auto request = infer_request_of(request_);
  if (!request.ok()) return end(end_of(request.error()));
  auto made = plan_infer(*model, *request);
  if (!made.ok()) return end(end_of(made.error()));
  auto plan = std::make_shared<InferPlan>(std::move(*made));
  apply_limits(*request, deadline_, plan->requests);
  OneShotRequests requests = std::move(plan->requests);
  account_->request().record().prompt_tokens = token_count(requests);
  for (engine::OneShotRequest& each : requests) each.timeline = account_->request().timeline();
  auto self = shared_from_this();
  const std::thread::id here = std::this_thread::get_id();
  const TimePoint submitted = std::chrono::steady_clock::now();
  auto done = [self, plan, here, submitted](OneShotCall& call) {
    auto finish = [self, plan, submitted, call = call.shared_from_this()] {
      if (const auto& timeline = self->account_->request().timeline()) note_passage(*timeline, *call, submitted);
      auto outputs = call->take();
      if (!outputs.ok()) return self->end(end_of(outputs.error()));
      fill(finish_infer(call->model(), *plan, std::move(*outputs)), self->response_);
      self->end({});
    };
    // Writing the answer is not the engine's work: a batch of 64 would hold the next one up.
    if (std::this_thread::get_id() == here) return finish();
    boost::asio::post(self->shared_.workers, std::move(finish));
  };
  auto started = OneShotCall::start(std::move(model), std::move(requests), std::move(done));
  if (auto* refused = std::get_if<Refused>(&started)) return refuse(*refused);
  std::lock_guard lock(mutex_);
  call_ = std::get<std::shared_ptr<OneShotCall>>(std::move(started));
  if (cancelled_) call_->cancel();
}

void InferCall::cancel() {
  std::shared_ptr<OneShotCall> call;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    call = call_;
  }
  if (call) call->cancel();
}

void InferCall::refuse(const Refused& refused) {
  if (const auto& timeline = account_->request().timeline()) {
    timeline->add(metrics::Moment::Kind::kRefused, std::chrono::steady_clock::now(), 0, 0, refused.reason);
  }
  end(end_of(refused));
}

void InferCall::end(const RpcEnd& end) {
  const Done done = std::exchange(done_, nullptr);
  if (!done) return;
  account_->end(end);
  done(end.status);
}

namespace {

class UnaryInfer final : public grpc::ServerUnaryReactor {
 public:
  UnaryInfer(RpcShared& shared, grpc::CallbackServerContext& context, const inference::ModelInferRequest& request,
             inference::ModelInferResponse& response)
      : call_(std::make_shared<InferCall>(
            shared, std::make_unique<RpcAccount>(shared.server, context, kInfer, request.ByteSizeLong()), request,
            response, deadline_of(context), [this](const grpc::Status& status) { Finish(status); })) {}

  void start() {
    // Held here: the call may be done, and this reactor gone, before start() returns.
    const std::shared_ptr<InferCall> call = call_;
    call->start();
  }
  void OnCancel() override { call_->cancel(); }
  void OnDone() override { delete this; }

 private:
  std::shared_ptr<InferCall> call_;
};

}  // namespace

grpc::ServerUnaryReactor* start_infer(RpcShared& shared, grpc::CallbackServerContext* context,
                                      const inference::ModelInferRequest* request,
                                      inference::ModelInferResponse* response) {
  if (const auto wrong = check_key(shared.server, *context)) {
    RpcAccount(shared.server, *context, kInfer, request->ByteSizeLong()).end(*wrong);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(wrong->status);
    return reactor;
  }
  auto* reactor = new UnaryInfer(shared, *context, *request, *response);
  reactor->start();
  return reactor;
}

}  // namespace spillway::server
