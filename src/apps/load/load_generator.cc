#include "apps/load/load_generator.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>

#include "apps/load/chat_exchange.h"

namespace spillway::apps {
namespace {

namespace asio = boost::asio;

constexpr auto kProgressPeriod = std::chrono::milliseconds(250);
constexpr size_t kErrorKindsMax = 8;
// At high rates arrivals leave in groups this far apart: setting the kernel's timer for each would cost the machine
// that is measured more than sending it. Times still count from the planned arrival.
constexpr auto kTick = std::chrono::milliseconds(1);

TimePoint now() { return std::chrono::steady_clock::now(); }

class Run {
 public:
  Run(const LoadOptions& options, const net::Url& url, std::string model)
      : options_(options),
        url_(net::join_path(url, "/chat/completions")),
        model_(std::move(model)),
        random_(options.seed) {}

  Result<LoadReport> run() {
    net::ClientOptions client;
    client.tls_verify = options_.tls_verify;
    client.tls_ca_file = options_.tls_ca_file;
    client.idle_connections_max = size_t(options_.in_flight_max);
    SW_ASSIGN(client_, net::HttpClient::create(context_.get_executor(), client));
    started_ = now();
    if (options_.clients > 0) {
      for (int i = 0; i < options_.clients; ++i) spawn(client_loop());
    } else {
      spawn(arrivals());
    }
    asio::co_spawn(context_, report_progress(), asio::detached);
    context_.run();
    if (failure_) std::rethrow_exception(failure_);
    return finish();
  }

 private:
  template <class Coroutine>
  void spawn(Coroutine coroutine) {
    ++under_way_;
    asio::co_spawn(context_, std::move(coroutine), [this](std::exception_ptr failure) {
      if (failure) failure_ = failure;
      if (--under_way_ == 0 || failure) context_.stop();
    });
  }

  bool more_to_send() const {
    return !stop_ && report_.sent + report_.not_sent < options_.requests_max && now() - started_ < options_.duration;
  }

  asio::awaitable<void> arrivals() {
    asio::steady_timer timer(context_);
    std::exponential_distribution<double> gap(options_.rate_per_s > 0 ? options_.rate_per_s : 1);
    const bool traced = !options_.trace.empty();
    double at_s = 0;
    TimePoint slept = now();
    for (size_t i = 0; more_to_send() && !(traced && i >= options_.trace.size()); ++i) {
      at_s = traced ? options_.trace[i].at_s : at_s + gap(random_);
      const TimePoint at = started_ + from_seconds(at_s);
      if (at - started_ >= options_.duration) break;
      if (at > now()) {
        timer.expires_at(std::max(at, slept + kTick));
        co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
        slept = now();
      }
      if (stop_) break;
      if (in_flight_ >= options_.in_flight_max) {
        ++report_.not_sent;
      } else {
        spawn(one_request(at, traced ? options_.trace[i] : next_request()));
      }
    }
    report_.arrivals_s = seconds(now() - started_);
  }

  asio::awaitable<void> client_loop() {
    while (more_to_send()) {
      LoadRequest request = next_request();
      co_await one_request(now(), std::move(request));
    }
    report_.arrivals_s = std::max(report_.arrivals_s, seconds(now() - started_));
  }

  LoadRequest next_request() {
    LoadRequest request;
    request.max_tokens = options_.max_tokens;
    if (!options_.prompts.empty()) {
      request.prompt = options_.prompts[next_prompt_++ % options_.prompts.size()];
    } else {
      std::uniform_int_distribution<int> number(10, 99);
      const int first = number(random_), second = number(random_);
      request.prompt = "What is " + std::to_string(first) + " + " + std::to_string(second) + "?";
    }
    return request;
  }

  asio::awaitable<void> one_request(TimePoint planned, LoadRequest wanted) {
    ++report_.sent;
    ++in_flight_;
    net::ClientRequest request;
    request.method = "POST";
    request.url = url_;
    request.headers = net::Headers::of("Content-Type", "application/json", "Accept", "text/event-stream");
    if (!options_.api_key.empty()) request.headers.add("Authorization", "Bearer " + options_.api_key);
    request.body = chat_body(model_, wanted.prompt, wanted.max_tokens, options_.temperature);
    request.response_timeout = request.read_timeout = options_.request_timeout;
    const std::function<void(double)> on_gap = [this](double gap) { itl_.add(gap); };
    const std::function<void()> on_piece = [this] { ++pieces_; };
    const ChatTimes times = co_await exchange_chat(*client_, std::move(request), on_gap, on_piece);
    --in_flight_;
    record(planned, times);
  }

  void record(TimePoint planned, const ChatTimes& times) {
    lateness_.add(seconds(times.sent - planned));
    ++report_.statuses[times.status];
    report_.tokens += times.tokens;
    last_done_ = std::max(last_done_, times.done);
    if (!times.error.empty()) {
      ++report_.failed;
      const bool known = report_.errors.contains(times.error);
      ++report_.errors[known || report_.errors.size() < kErrorKindsMax ? times.error : "other"];
    } else if (times.status == 200) {
      record_completed(planned, times);
    } else {
      record_refused(times);
    }
  }

  void record_completed(TimePoint planned, const ChatTimes& times) {
    ++report_.completed;
    const double ttft = seconds((times.pieces > 0 ? times.first_token : times.done) - planned);
    ttft_.add(ttft);
    total_.add(seconds(times.done - planned));
    const double gap =
        times.pieces > 1 ? seconds(times.last_token - times.first_token) / double(times.pieces - 1) : 0.0;
    if (ttft > options_.ttft_objective_s || gap > options_.itl_objective_s) return;
    ++report_.good;
    good_while_loaded_ += options_.clients == 0 && report_.arrivals_s == 0;
  }

  void record_refused(const ChatTimes& times) {
    const double delay = times.retry_after_s.value_or(0);
    if (!times.retry_after_s) ++report_.refused_bare;
    report_.retry_after_min_s = report_.refused == 0 ? delay : std::min(report_.retry_after_min_s, delay);
    report_.retry_after_max_s = std::max(report_.retry_after_max_s, delay);
    ++report_.refused;
    refusal_.add(seconds(times.done - times.sent));
  }

  asio::awaitable<void> report_progress() {
    asio::steady_timer timer(context_);
    while (options_.on_progress) {
      timer.expires_after(kProgressPeriod);
      co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
      const LoadOptions::Progress progress{
          seconds(now() - started_), report_.sent,   in_flight_, report_.completed, report_.good,
          report_.refused,           report_.failed, pieces_};
      if (!options_.on_progress(progress)) {
        stop_ = true;
        context_.stop();
      }
    }
  }

  LoadReport finish() {
    report_.elapsed_s = std::max(1e-9, seconds(std::max(last_done_, started_) - started_));
    if (report_.arrivals_s == 0) report_.arrivals_s = report_.elapsed_s;
    report_.ttft = ttft_.percentiles();
    report_.itl = itl_.percentiles();
    report_.total = total_.percentiles();
    report_.refusal = refusal_.percentiles();
    report_.lateness = lateness_.percentiles();
    report_.offered_per_s = double(report_.sent + report_.not_sent) / report_.arrivals_s;
    report_.goodput_per_s = std::max(double(report_.good) / report_.elapsed_s,
                                     double(good_while_loaded_) / std::max(1e-9, report_.arrivals_s));
    report_.completed_per_s = double(report_.completed) / report_.elapsed_s;
    report_.tokens_per_s = double(report_.tokens) / report_.elapsed_s;
    return report_;
  }

  const LoadOptions& options_;
  const net::Url url_;
  const std::string model_;
  std::mt19937_64 random_;
  asio::io_context context_{1};
  std::unique_ptr<net::HttpClient> client_;
  TimePoint started_, last_done_;
  LoadReport report_;
  LatencyHistogram ttft_, itl_, total_, refusal_, lateness_;
  int64_t in_flight_ = 0, under_way_ = 0, pieces_ = 0;
  int64_t good_while_loaded_ = 0;  // answered before the arrivals ended
  size_t next_prompt_ = 0;
  bool stop_ = false;
  std::exception_ptr failure_;
};

Result<std::string> first_model(const LoadOptions& options, const net::Url& url) {
  net::ClientRequest request;
  request.url = net::join_path(url, "/models");
  if (!options.api_key.empty()) request.headers.add("Authorization", "Bearer " + options.api_key);
  request.response_timeout = request.read_timeout = options.request_timeout;
  net::ClientOptions client;
  client.tls_verify = options.tls_verify;
  client.tls_ca_file = options.tls_ca_file;
  SW_ASSIGN(const net::ClientResponse response, net::fetch_blocking(std::move(request), client));
  auto model = response.status == 200 ? parse_first_model(response.body) : std::nullopt;
  if (model) return *std::move(model);
  return Error{ErrorCode::kUnavailable, url.origin() + ": expected a list of models, found status " +
                                            std::to_string(response.status) + "; name the model"};
}

}  // namespace

Result<LoadReport> run_load(const LoadOptions& options) {
  SW_ASSIGN(const net::Url url, net::parse_url(options.url));
  const int ways = (options.rate_per_s > 0) + !options.trace.empty() + (options.clients > 0);
  if (ways != 1)
    return invalid("load: expected one of a rate, a trace or a number of clients, found " + std::to_string(ways));
  if (options.in_flight_max < 1 || options.requests_max < 1) return invalid("load: expected bounds of at least 1");
  std::string model = options.model;
  if (model.empty()) {
    SW_ASSIGN(model, first_model(options, url));
  }
  Run run(options, url, std::move(model));
  return run.run();
}

}  // namespace spillway::apps
