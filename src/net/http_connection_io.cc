// The part of HttpConnection that moves bytes and keeps time.
#include <netinet/tcp.h>

#include <boost/asio/post.hpp>

#include "base/trace.h"
#include "net/http_connection.h"

namespace spillway::net {
namespace {

constexpr size_t kSmallRead = 2048;
constexpr size_t kLingerBytesMax = 1 << 20;
constexpr auto kLinger = std::chrono::seconds(1);
constexpr int kUnsentBytesMax = 64 << 10;

std::string address_of(const Tcp::socket& socket) {
  IoError error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return "unknown";
  const std::string address = endpoint.address().to_string();
  return (endpoint.address().is_v6() ? "[" + address + "]" : address) + ":" + std::to_string(endpoint.port());
}

}  // namespace

HttpConnection::HttpConnection(Tcp::socket socket, std::shared_ptr<ServerShared> shared)
    : shared_(std::move(shared)),
      transport_(std::move(socket)),
      executor_(transport_.socket().get_executor()),
      point_(executor_) {
  shared_->connection_opened();
  peer_ = address_of(transport_.socket());
  IoError ignored;
  transport_.socket().non_blocking(true, ignored);
  transport_.socket().set_option(Tcp::no_delay(true), ignored);
  // What a slow reader has not taken waits in its handler, not in the kernel.
  using UnsentMax = asio::detail::socket_option::integer<IPPROTO_TCP, TCP_NOTSENT_LOWAT>;
  transport_.socket().set_option(UnsentMax(kUnsentBytesMax), ignored);
  if (shared_->tls) transport_.use_tls(*shared_->tls);
}

HttpConnection::~HttpConnection() { shared_->connection_closed(); }

asio::awaitable<void> HttpConnection::serve(std::shared_ptr<HttpConnection> self, Set& siblings) {
  // Also on an exception, or when the server ends half-way: nothing keeps the connection then.
  struct Membership {
    Membership(Set& set, HttpConnection* who) : set(set), who(who) { set.insert(who); }
    ~Membership() {
      set.erase(who);
      who->finish_response();
      who->transport_.close();
    }
    Set& set;
    HttpConnection* who;
  } membership(siblings, self.get());
  if (!self->transport_.tls() || co_await self->handshake()) {
    while (co_await self->serve_request()) {
    }
    co_await self->linger();
  }
}

void HttpConnection::leave_if_idle() {
  if (!idle_ || waiting_ != Waiting::kRead) return;
  asio::post(executor_, [self = shared_from_this()] {
    if (self->waiting_ == Waiting::kRead) self->point_.wake();
  });
}

void HttpConnection::cut() {
  broken_ = true;
  transport_.close();
  tell_disconnected();
}

// Waits for the pending operation; cuts the connection at the deadline.
asio::awaitable<void> HttpConnection::finish_operation(TimePoint deadline) {
  while (operation_pending_) {
    waiting_ = Waiting::kOperation;
    co_await point_.wait_until(deadline);
    waiting_ = Waiting::kNothing;
    if (operation_pending_ && std::chrono::steady_clock::now() >= deadline) {
      cut();
      deadline = TimePoint::max();
    }
  }
}

void HttpConnection::on_operation(IoError error, size_t count) {
  operation_pending_ = false;
  operation_error_ = error;
  operation_bytes_ = count;
  if (waiting_ == Waiting::kOperation) point_.wake();
}

asio::awaitable<bool> HttpConnection::handshake() {
  operation_pending_ = true;
  transport_.tls()->async_handshake(asio::ssl::stream_base::server,
                                    [self = shared_from_this()](IoError error) { self->on_operation(error, 0); });
  co_await finish_operation(std::chrono::steady_clock::now() + shared_->options.header_timeout);
  co_return !operation_error_ && !broken_;
}

void HttpConnection::start_read(size_t count) {
  if (read_pending_ || closed_ || broken_) return;
  read_pending_ = true;
  transport_.async_read_some(inbox_.room(count),
                             [self = shared_from_this()](IoError error, size_t bytes) { self->on_read(error, bytes); });
}

void HttpConnection::on_read(IoError error, size_t count) {
  read_pending_ = false;
  inbox_.arrived(count);
  if (error) {
    closed_ = true;
    tell_disconnected();
  } else if (handling_ && inbox_.size() < shared_->options.pipelined_bytes_max) {
    start_read(kSmallRead);
  }
  if (waiting_ == Waiting::kRead) point_.wake();
}

asio::awaitable<HttpConnection::Read> HttpConnection::read_more(size_t count, TimePoint deadline) {
  const size_t had = inbox_.size();
  start_read(count);
  while (inbox_.size() == had) {
    if (closed_ || broken_) co_return Read::kClosed;
    if (std::chrono::steady_clock::now() >= deadline || (idle_ && shared_->draining)) co_return Read::kLate;
    waiting_ = Waiting::kRead;
    co_await point_.wait_until(deadline);
    waiting_ = Waiting::kNothing;
  }
  co_return Read::kBytes;
}

asio::awaitable<bool> HttpConnection::await_first_byte() {
  const Duration patience = first_ ? shared_->options.header_timeout : shared_->options.idle_timeout;
  first_ = false;
  if (!inbox_.empty()) co_return true;
  inbox_.shrink(kSmallRead);
  idle_ = true;
  const Read read = co_await read_more(kSmallRead, std::chrono::steady_clock::now() + patience);
  idle_ = false;
  co_return read == Read::kBytes;
}

// What goes without waiting. Whether nothing is left to wait for: all went, or the connection is cut.
bool HttpConnection::write_at_once(WriteBuffers& buffers) {
  if (broken_) return true;
  trace::Span span("io", "write", "bytes", static_cast<int64_t>(bytes_in(buffers)));
  IoError error;
  consume(buffers, transport_.write_now(buffers, error));
  if (error) cut();
  return error || bytes_in(buffers) == 0;
}

asio::awaitable<bool> HttpConnection::write_all(WriteBuffers buffers) {
  if (write_at_once(buffers)) co_return !broken_;
  co_return co_await write_slowly(buffers);
}

// Each piece must go within write_timeout, and the whole at the minimum rate.
asio::awaitable<bool> HttpConnection::write_slowly(WriteBuffers buffers) {
  const int64_t traced = trace::begin_async();
  const HttpServerOptions& options = shared_->options;
  const double by_rate = double(bytes_in(buffers)) / double(std::max<uint64_t>(1, options.rate_bytes_per_s_min));
  const TimePoint last =
      std::chrono::steady_clock::now() + options.write_timeout + options.rate_grace + from_seconds(by_rate);
  while (bytes_in(buffers) > 0) {
    operation_pending_ = true;
    transport_.async_write_some(
        buffers, [self = shared_from_this()](IoError error, size_t bytes) { self->on_operation(error, bytes); });
    co_await finish_operation(std::min(last, std::chrono::steady_clock::now() + options.write_timeout));
    if (operation_error_ || broken_) {
      cut();
      co_return false;
    }
    consume(buffers, operation_bytes_);
  }
  trace::end_async("io", "slow write", reinterpret_cast<uintptr_t>(this), traced);
  co_return true;
}

// A socket closed with unread bytes resets the connection, and the client may lose the response it has not read yet. So
// our side is closed first, and what still comes is thrown away for a while.
asio::awaitable<void> HttpConnection::linger() {
  if (broken_ || closed_) co_return;
  const TimePoint deadline = std::chrono::steady_clock::now() + kLinger;
  if (transport_.tls()) {
    operation_pending_ = true;
    transport_.tls()->async_shutdown([self = shared_from_this()](IoError error) { self->on_operation(error, 0); });
    co_await finish_operation(deadline);
    co_return;
  }
  IoError ignored;
  transport_.socket().shutdown(Tcp::socket::shutdown_send, ignored);
  size_t thrown_away = 0;
  while (thrown_away < kLingerBytesMax) {
    thrown_away += inbox_.size();
    inbox_.consume(inbox_.size());
    if (co_await read_more(kSmallRead, deadline) != Read::kBytes) break;
  }
}

}  // namespace spillway::net
