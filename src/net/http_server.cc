#include "net/http_server.h"

#include <netinet/tcp.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/trace.h"
#include "metrics/metrics.h"
#include "net/http_connection.h"
#include "net/response_head.h"

namespace spillway::net {
namespace {

using std::chrono::milliseconds;

metrics::Counter refused_connections{"spillway_http_connections_refused_total",
                                     "Connections refused because too many were open."};

constexpr size_t kRefusalsMax = 128;  // being told at once; further ones are closed without a word
constexpr auto kRefusalLinger = milliseconds(500);
constexpr auto kCutPatience = milliseconds(1000);

// One I/O thread. The set outlives the context, whose end destroys the connections' coroutines.
struct Worker {
  HttpConnection::Set connections;
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::thread thread;
};

Result<Tcp::acceptor> listen(asio::io_context& context, const HttpServerOptions& options) {
  const std::string where = options.address + ":" + std::to_string(options.port);
  IoError error;
  const auto address = asio::ip::make_address(options.address == "localhost" ? "127.0.0.1" : options.address, error);
  if (error) return invalid("listen address \"" + options.address + "\": expected an IPv4 or IPv6 address");
  const Tcp::endpoint endpoint(address, options.port);
  Tcp::acceptor acceptor(context);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error && address.is_v6()) acceptor.set_option(asio::ip::v6_only(false), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(options.backlog, error);
  if (error) return Error{ErrorCode::kUnavailable, "cannot listen on " + where + ": " + error.message()};
  return acceptor;
}

class Server final : public HttpServer {
 public:
  Server(HttpServerOptions options, Handler handler, TlsContext tls) : shared_(std::make_shared<ServerShared>()) {
    shared_->options = std::move(options);
    shared_->handler = std::move(handler);
    shared_->tls = std::move(tls);
    for (int i = 0; i < std::max(1, shared_->options.io_threads); ++i) workers_.push_back(std::make_unique<Worker>());
  }

  ~Server() override {
    stop_accepting();
    cut_all();
    wait_until_closed(std::chrono::steady_clock::now() + kCutPatience);
    for (auto& worker : workers_) worker->context.stop();
    for (auto& worker : workers_) {
      if (worker->thread.joinable()) worker->thread.join();
    }
  }

  Status run() {
    SW_ASSIGN(acceptor_, listen(workers_[0]->context, shared_->options));
    port_ = acceptor_->local_endpoint().port();
    asio::co_spawn(workers_[0]->context, accept(), asio::detached);
    for (auto& worker : workers_)
      worker->thread = std::thread([&context = worker->context] {
        trace::name_thread("I/O");
        context.run();
      });
    return {};
  }

  uint16_t port() const override { return port_; }
  size_t connections() const override { return shared_->connections; }

  void stop_accepting() override {
    if (!acceptor_ || !workers_[0]->thread.joinable()) return;
    std::promise<void> closed;
    asio::post(workers_[0]->context, [&] {
      IoError ignored;
      acceptor_->close(ignored);
      closed.set_value();
    });
    closed.get_future().wait();
  }

  bool drain(TimePoint deadline) override {
    shared_->draining = true;
    stop_accepting();
    for_each_connection([](HttpConnection& connection) { connection.leave_if_idle(); });
    if (wait_until_closed(deadline)) return true;
    SW_WARN("drain: {} connections were still at work at the deadline and are cut", connections());
    cut_all();
    wait_until_closed(std::chrono::steady_clock::now() + kCutPatience);
    return false;
  }

 private:
  asio::awaitable<void> accept() {
    asio::steady_timer pause(workers_[0]->context);
    for (size_t turn = 0;; ++turn) {
      Worker& worker = *workers_[turn % workers_.size()];
      auto [error, socket] = co_await acceptor_->async_accept(worker.context, asio::as_tuple(asio::use_awaitable));
      if (!acceptor_->is_open()) co_return;
      if (error) {  // no descriptors left, or the client went away again
        pause.expires_after(milliseconds(error == asio::error::connection_aborted ? 0 : 50));
        co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
      } else if (shared_->connections >= shared_->options.connections_max) {
        refused_connections->add();
        if (refusals_.load() < kRefusalsMax) {
          refusals_.fetch_add(1);
          asio::co_spawn(worker.context, refuse(std::make_shared<Tcp::socket>(std::move(socket))), asio::detached);
        }
      } else {
        auto connection = std::make_shared<HttpConnection>(std::move(socket), shared_);
        asio::co_spawn(worker.context, HttpConnection::serve(std::move(connection), worker.connections), &report);
      }
    }
  }

  static void report(std::exception_ptr failure) {
    if (!failure) return;
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      SW_ERROR("HTTP connection ended by an exception: {}", error.what());
    }
  }

  // A plain 503 for who is over the bound. Behind TLS there is no way to say it cheaply, so that is only closed.
  asio::awaitable<void> refuse(std::shared_ptr<Tcp::socket> socket) {
    if (!shared_->tls) {
      ErrorBody body{.body = "too many connections\n"};
      if (shared_->options.error_body) body = shared_->options.error_body(503, "too many connections");
      const Headers headers{{"Content-Type", body.content_type},
                            {"Retry-After", std::to_string(shared_->options.retry_after_s)}};
      const std::string text =
          response_head(503, headers, {.content_length = body.body.size(), .close = true}) + body.body;
      IoError error;
      socket->non_blocking(true, error);
      socket->write_some(asio::buffer(text), error);
      socket->shutdown(Tcp::socket::shutdown_send, error);
      // The client's request must not meet a closed socket before it has read this.
      asio::steady_timer until(socket->get_executor(), kRefusalLinger);
      until.async_wait([socket](IoError cancelled) {
        if (!cancelled) socket->close();
      });
      char scrap[1024];
      while (!error) {
        co_await socket->async_read_some(asio::buffer(scrap), asio::redirect_error(asio::use_awaitable, error));
      }
    }
    refusals_.fetch_sub(1);
  }

  void for_each_connection(void (*visit)(HttpConnection&)) {
    for (auto& worker : workers_) {
      asio::post(worker->context, [&connections = worker->connections, visit] {
        for (HttpConnection* connection : connections) visit(*connection);
      });
    }
  }

  void cut_all() {
    for_each_connection([](HttpConnection& connection) { connection.cut(); });
  }

  bool wait_until_closed(TimePoint deadline) {
    std::unique_lock lock(shared_->mutex);
    return shared_->all_closed.wait_until(lock, deadline, [&] { return shared_->connections == 0; });
  }

  std::shared_ptr<ServerShared> shared_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::optional<Tcp::acceptor> acceptor_;
  std::atomic<size_t> refusals_{0};
  uint16_t port_ = 0;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerOptions options, Handler handler) {
  TlsContext tls;
  if (options.tls_certificate_file.empty() != options.tls_key_file.empty()) {
    return invalid("TLS: expected both a certificate and a key file, found only one of them");
  }
  if (!options.tls_certificate_file.empty()) {
    SW_ASSIGN(tls, make_server_tls(options.tls_certificate_file, options.tls_key_file));
  }
  auto server = std::make_unique<Server>(std::move(options), std::move(handler), std::move(tls));
  SW_TRY(server->run());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace spillway::net
