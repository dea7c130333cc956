#include "server/http/generate.h"

#include <chrono>
#include <utility>

#include "base/trace.h"
#include "metrics/metrics.h"
#include "metrics/timeline.h"
#include "net/channel.h"
#include "net/sse.h"
#include "server/http/aside.h"

namespace spillway::server {
namespace {

using api::ApiError;
using api::ErrorKind;

metrics::Counter refusals_total("spillway_http_refusals_total", "Generations refused by admission, by reason.",
                                {"reason"});
metrics::Counter disconnects_total("spillway_http_disconnects_total",
                                   "Clients that left before their answer was complete.");
metrics::Counter keep_alives_total("spillway_http_keep_alives_total", "Keep-alive comments sent on silent streams.");

TimePoint now() { return std::chrono::steady_clock::now(); }

class Pump {
 public:
  Pump(Exchange& exchange, Reply& reply, std::shared_ptr<Completion> completion, std::shared_ptr<net::Signal> signal)
      : exchange_(exchange), reply_(reply), completion_(std::move(completion)), signal_(std::move(signal)) {}

  asio::awaitable<void> stream() {
    const Duration interval = exchange_.server().options().keep_alive_interval;
    TimePoint next_comment = now() + interval;
    while (!completion_->finished()) {
      const bool news = co_await signal_->wait_until(next_comment);
      out_.clear();
      bool text = false;
      if (news) {
        text = take();
      } else if (!exchange_.writer().disconnected()) {
        reply_.keep_alive(out_);
        keep_alives_total->add();
      }
      if (error_) {
        co_await fail();
        co_return;
      }
      if (completion_->finished()) reply_.end(*completion_, out_);
      if (out_.empty()) continue;
      if (!co_await write(out_)) co_return;
      if (text) exchange_.account().first_token();
      next_comment = now() + interval;
    }
    co_await exchange_.writer().end();
  }

  asio::awaitable<void> whole() {
    const ServerOptions& options = exchange_.server().options();
    std::vector<CollectedChoice> choices(completion_->choices());
    while (!completion_->finished() && !error_) {
      const TimePoint until = options.trickle ? now() + options.keep_alive_interval : TimePoint::max();
      const bool news = co_await signal_->wait_until(until);
      if (!news) {
        if (!co_await write("\n")) co_return;
        continue;
      }
      for (ChoiceUpdate& update : completion_->poll()) {
        if (update.error && !error_) error_ = update.error;
        if (update.finish && !finish_) finish_ = update.finish;
        if (!update.pieces.empty()) exchange_.account().first_token();
        const int choice = update.choice;
        choices[choice].add(std::move(update));
      }
    }
    if (error_) {
      co_await fail();
      co_return;
    }
    std::string body = reply_.whole(*completion_, std::move(choices));
    if (!exchange_.writer().started()) {
      co_await exchange_.send_json(200, std::move(body));
    } else if (co_await write(body)) {
      co_await exchange_.writer().end();
    }
  }

  // Of the first choice that ended; empty before.
  std::string_view finish_reason() const { return finish_ ? api::finish_reason_name(*finish_) : ""; }

 private:
  // Polls and words what came; one choice's error ends the whole answer. Whether there was text in it.
  bool take() {
    bool text = false;
    for (const ChoiceUpdate& update : completion_->poll()) {
      if (update.error && !error_) error_ = update.error;
      if (update.finish && !finish_) finish_ = update.finish;
      for (const TextPiece& piece : update.pieces) text |= !piece.delta.text.empty() || !piece.delta.tool_name.empty();
      reply_.update(update, *completion_, out_);
    }
    return text;
  }

  asio::awaitable<bool> write(std::string_view bytes) {
    if (!exchange_.writer().started()) {
      const std::string_view type = reply_.streams() ? net::kSseContentType : std::string_view("application/json");
      const bool begun = co_await exchange_.start_stream(type, bytes);
      if (!begun) left();
      co_return begun;
    }
    const bool written = co_await exchange_.writer().write(bytes);
    if (!written) left();
    co_return written;
  }

  // Tells error_, as a status while that is possible, else after what out_ holds.
  asio::awaitable<void> fail() {
    completion_->cancel();
    if (exchange_.writer().disconnected()) {
      left();
      co_return;
    }
    if (!exchange_.writer().started()) {
      co_await exchange_.send_error(*error_);
      co_return;
    }
    exchange_.set_outcome(api::error_row(error_->kind).label);
    if (reply_.streams()) {
      reply_.fail(*error_, out_);
    } else {
      out_ = exchange_.error_body(*error_);
    }
    // Not in the condition: GCC 12 misplaces the frame of `if (co_await a) co_await b;`.
    const bool written = co_await write(out_);
    if (written) co_await exchange_.writer().end();
  }

  void left() {
    completion_->cancel();
    exchange_.set_outcome(api::error_row(ErrorKind::kCancelled).label);
    disconnects_total->add();
  }

  Exchange& exchange_;
  Reply& reply_;
  std::shared_ptr<Completion> completion_;
  std::shared_ptr<net::Signal> signal_;
  std::string out_;                // bytes of the stream not yet written
  std::optional<ApiError> error_;  // why the answer cannot be completed
  std::optional<api::FinishReason> finish_;
};

}  // namespace

void OpenAiReply::keep_alive(std::string& out) { net::append_sse_comment(out, "keep-alive"); }

void OpenAiReply::fail(const api::ApiError& error, std::string& out) {
  net::append_sse_event(out, api::openai_error_body(error));
  net::append_sse_event(out, "[DONE]");
}

asio::awaitable<void> refuse(Exchange& exchange, Refused refused) {
  refusals_total.with({refused.reason}).add();
  if (const auto& timeline = exchange.request().timeline) {
    timeline->add(metrics::Moment::Kind::kRefused, now(), 0, 0, refused.reason);
  }
  co_await exchange.send_refused(std::move(refused));
}

std::optional<Refused> refused_now(Server& server) {
  if (server.state() == ServerState::kLoading) {
    return Refused{{ErrorKind::kOverloaded, "The model is still being loaded.", "", "loading"}, 1, 0, "loading"};
  }
  if (server.state() == ServerState::kDraining) {
    return Refused{{ErrorKind::kOverloaded, "The server is shutting down.", "", "draining"}, 1, 0, "draining"};
  }
  const auto catalogue = server.catalogue();
  std::optional<Refused> first;
  for (const LanguagePtr& model : catalogue->languages()) {
    auto refused = refused_by_state(model->engine().state(), server.hot()->admission);
    if (!refused) return std::nullopt;  // the request may be for this one
    if (!first) first = std::move(refused);
  }
  if (!first) return std::nullopt;
  for (const ListedModel& model : catalogue->listed()) {
    // Or for one that it brings back.
    if (model.kind == ModelKind::kLanguage && !catalogue->is_ready(model.name, "")) return std::nullopt;
  }
  return first;
}

asio::awaitable<void> generate(Exchange& exchange, std::shared_ptr<ServedModel> model, PlanJob job, Reply& reply) {
  exchange.account().set_model(model->name(), model->fingerprint());
  InFlight in_flight(exchange.server());
  if (!in_flight) {
    auto refused = refused_now(exchange.server());
    if (refused) co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  if (auto refused = refused_by_state(model->engine().state(), exchange.server().hot()->admission)) {
    co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  const api::Parsed<TimePoint> deadline = exchange.deadline(job.deadline_ms);
  if (!deadline.ok()) {
    co_await exchange.send_error(deadline.error());
    co_return;
  }
  std::optional<api::Parsed<Plan>> planned;
  if (job.constrained || takes_long(exchange)) {
    std::function<api::Parsed<Plan>()> make = [make_plan = std::move(job.make)] {
      trace::Span span("server", "plan aside");
      return make_plan();
    };
    planned.emplace(co_await make_aside<api::Parsed<Plan>>(exchange, std::move(make)));
  } else {
    trace::Span span("server", "plan", "bytes", static_cast<int64_t>(exchange.request().body.size()));
    planned.emplace(job.make());
  }
  if (!planned->ok()) {
    co_await exchange.send_error(planned->error());
    co_return;
  }
  Plan& plan = **planned;
  const api::Parsed<engine::Priority> priority = exchange.priority(plan.priority);
  if (!priority.ok()) {
    co_await exchange.send_error(priority.error());
    co_return;
  }
  plan.deadline = *deadline;
  plan.priority = *priority;
  plan.timeline = exchange.request().timeline;
  if (plan.timeline) plan.timeline->set_model(model->name());

  auto signal = std::make_shared<net::Signal>(exchange.writer().executor());
  Completion::Started started = Completion::start(model, std::move(plan), [signal] { signal->notify(); });
  if (auto* refused = std::get_if<Refused>(&started)) {
    co_await refuse(exchange, std::move(*refused));
    co_return;
  }
  std::shared_ptr<Completion> completion = std::move(std::get<std::unique_ptr<Completion>>(started));
  exchange.writer().on_disconnect([completion] { completion->cancel(); });
  Pump pump(exchange, reply, completion, std::move(signal));
  if (reply.streams()) {
    co_await pump.stream();
  } else {
    co_await pump.whole();
  }
  exchange.account().note_usage(completion->usage());
  exchange.record().finish_reason = pump.finish_reason();
  if (completion->usage().completion_tokens > 0) {
    exchange.server().prefixes().served(exchange.request().headers.value_or(kPrefixHeader, ""));
  }
}

ApiError model_not_found(std::string_view name) {
  if (name.empty()) return {ErrorKind::kInvalidFormat, "model: expected a name, found none", "model", ""};
  return {ErrorKind::kNotFound, "The model `" + api::utf8_lossy(name) + "` does not exist.", "model",
          "model_not_found"};
}

}  // namespace spillway::server
