#include "server/server.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "net/channel.h"
#include "server/console/live_state.h"
#include "server/http/router.h"

namespace spillway::server {

namespace asio = net::asio;

namespace {

bool same_queue(const AdmissionBounds& a, const AdmissionBounds& b) {
  return a.queue_requests_max == b.queue_requests_max && a.queue_tokens_max == b.queue_tokens_max &&
         a.queue_wait_max_s == b.queue_wait_max_s;
}

}  // namespace

class Server::Workers {
 public:
  asio::thread_pool aside{2};  // so that one text of megabytes does not hold up everybody's grammars
  asio::thread_pool apart{1};
  asio::thread_pool scrapes{1};  // one at a time, so that many scrapers cost no more memory than one
};

namespace {

asio::awaitable<void> run_in(asio::thread_pool& pool, std::function<void()> work) {
  // The signal belongs to the connection's executor, which a job that never ran may outlive: it only has a weak hold.
  const auto executor = co_await asio::this_coro::executor;
  auto done = std::make_shared<net::Signal>(executor);
  asio::post(pool, [work = std::move(work), waiting = std::weak_ptr<net::Signal>(done)] {
    work();
    if (auto signal = waiting.lock()) signal->notify();
  });
  while (!co_await done->wait_until(std::chrono::steady_clock::now() + std::chrono::hours(1))) continue;
}

}  // namespace

Server::Server(ServerOptions options)
    : options_(std::move(options)),
      catalogue_(std::make_shared<FixedCatalogue>(std::vector<LanguagePtr>())),
      workers_(std::make_unique<Workers>()) {
  live_ = std::make_unique<LiveState>(*this);
}

Server::~Server() {
  state_ = ServerState::kDraining;
  // Their jobs wake connections, so none may run when those are gone.
  for (asio::thread_pool* pool : {&workers_->aside, &workers_->apart, &workers_->scrapes}) pool->stop();
  for (asio::thread_pool* pool : {&workers_->aside, &workers_->apart, &workers_->scrapes}) pool->join();
  http_.reset();
  metrics_http_.reset();
  live_.reset();
}

Result<std::unique_ptr<Server>> Server::start(ServerOptions options) {
  std::unique_ptr<Server> server(new Server(std::move(options)));
  const ServerOptions& given = server->options_;
  SW_TRY(server->reload(given.api_keys, given.api_keys_file, given.admission, given.admin_keys, given.admin_keys_file));
  SW_TRY(server->listen());
  return server;
}

Status Server::listen() {
  net::HttpServerOptions http = options_.http;
  http.error_body = transport_error_body;
  auto api = [this](net::HttpRequest request, net::ResponseWriter& writer) {
    return route(*this, std::move(request), writer);
  };
  SW_ASSIGN(http_, net::HttpServer::start(http, api));
  if (options_.metrics_port < 0) return {};
  http.port = static_cast<uint16_t>(options_.metrics_port);
  http.tls_certificate_file.clear();  // scrapers of the inner network speak plain HTTP
  http.tls_key_file.clear();
  http.io_threads = 1;
  http.connections_max = 64;
  auto metrics = [this](net::HttpRequest request, net::ResponseWriter& writer) {
    return route_metrics(*this, std::move(request), writer);
  };
  SW_ASSIGN(metrics_http_, net::HttpServer::start(http, metrics));
  return {};
}

void Server::serve(std::shared_ptr<ModelCatalogue> catalogue) {
  std::lock_guard lock(mutex_);
  catalogue_ = std::move(catalogue);
  set_queue_bounds();
  ServerState loading = ServerState::kLoading;
  state_.compare_exchange_strong(loading, ServerState::kReady);
}

asio::awaitable<void> Server::answer_locally(net::HttpRequest request, net::ResponseWriter& writer) {
  return route_locally(*this, std::move(request), writer);
}

Status Server::reload(const std::vector<std::string>& api_keys, const std::string& api_keys_file,
                      const AdmissionBounds& admission, const std::vector<std::string>& admin_keys,
                      const std::string& admin_keys_file) {
  auto fresh = std::make_shared<HotOptions>();
  fresh->admission = admission;
  SW_ASSIGN(fresh->keys, ApiKeys::load(api_keys, api_keys_file));
  SW_ASSIGN(fresh->admin_keys, ApiKeys::load(admin_keys, admin_keys_file));
  std::lock_guard lock(mutex_);
  const std::shared_ptr<const HotOptions> before = std::exchange(hot_, std::move(fresh));
  set_queue_bounds();
  // A one-shot model may have bounds of its own, which only a change of the common ones replaces.
  if (!before || same_queue(before->admission, admission)) return {};
  for (const auto& model : catalogue_->ready()) {
    model->engine().set_queue_bounds(
        {admission.queue_requests_max, admission.queue_tokens_max, admission.queue_wait_max_s});
  }
  return {};
}

void Server::set_queue_bounds() {
  const AdmissionBounds& bounds = hot_->admission;
  for (const LanguagePtr& model : catalogue_->languages()) {
    model->engine().set_queue_bounds({bounds.queue_requests_max, bounds.queue_tokens_max, bounds.queue_wait_max_s});
  }
}

std::shared_ptr<const HotOptions> Server::hot() const {
  std::lock_guard lock(mutex_);
  return hot_;
}

bool Server::drain(TimePoint deadline) {
  bool clean;
  {
    std::unique_lock lock(mutex_);
    state_ = ServerState::kDraining;
    clean = idle_.wait_until(lock, deadline, [&] { return in_flight_ == 0; });
  }
  for (const LanguagePtr& model : models()) clean &= model->engine().drain(deadline);
  for (const auto& model : catalogue()->ready()) clean &= model->engine().drain(deadline);
  clean &= http_->drain(deadline);
  return clean;
}

std::shared_ptr<ModelCatalogue> Server::catalogue() const {
  std::lock_guard lock(mutex_);
  return catalogue_;
}

bool Server::stalled() const {
  const auto all = models();
  const double stall_s = hot()->admission.stall_s;
  const auto one_shot = catalogue()->ready();
  const bool stuck = std::ranges::any_of(one_shot, [&](const OneShotPtr& model) {
    const engine::OneShotState state = model->engine().state();
    return state.stalled || state.seconds_since_progress >= stall_s;
  });
  if (stuck) return true;
  return std::ranges::any_of(all, [&](const auto& model) {
    const engine::EngineState state = model->engine().state();
    return state.stalled || state.seconds_since_progress >= stall_s;
  });
}

const char* Server::status() const {
  switch (state()) {
    case ServerState::kLoading:
      return "loading";
    case ServerState::kDraining:
      return "draining";
    case ServerState::kReady:
      break;
  }
  if (!device_fault().empty()) return "device_failed";
  return stalled() ? "stalled" : "ready";
}

bool Server::enter() {
  std::lock_guard lock(mutex_);
  if (state_ != ServerState::kReady) return false;
  ++in_flight_;
  return true;
}

void Server::leave() {
  std::lock_guard lock(mutex_);
  if (--in_flight_ == 0) idle_.notify_all();
}

bool Server::charge_unpacked(uint64_t bytes) {
  if ((unpacked_bytes_ += bytes) <= options_.http.bodies_bytes_max) return true;
  unpacked_bytes_ -= bytes;
  return false;
}

asio::awaitable<void> Server::run_aside(std::function<void()> work) { return run_in(workers_->aside, std::move(work)); }
asio::awaitable<void> Server::run_apart(std::function<void()> work) { return run_in(workers_->apart, std::move(work)); }

asio::awaitable<void> Server::run_scrape(std::function<void()> work) {
  return run_in(workers_->scrapes, std::move(work));
}

}  // namespace spillway::server
