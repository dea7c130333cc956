#include "net/client_connection.h"

#include <openssl/ssl.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>

namespace spillway::net {
namespace {

constexpr size_t kReadBytes = 16 << 10;

std::string reason(const IoError& error, SSL* ssl) {
  const long verified = ssl ? ::SSL_get_verify_result(ssl) : X509_V_OK;
  if (verified != X509_V_OK) return std::string("certificate: ") + ::X509_verify_cert_error_string(verified);
  return error.message();
}

}  // namespace

ClientConnection::ClientConnection(asio::any_io_executor executor, std::string origin)
    : origin_(std::move(origin)), resolver_(executor), transport_(Tcp::socket(executor)), point_(executor) {}

void ClientConnection::begin() { pending_ = true; }

void ClientConnection::on_done(IoError error, size_t count) {
  pending_ = false;
  error_ = error;
  count_ = count;
  if (waiting_) point_.wake();
}

// Waits for the operation begun; at the deadline closes the connection, for half an operation cannot be taken back.
asio::awaitable<Status> ClientConnection::finish(std::string_view what, TimePoint deadline) {
  bool late = false;
  while (pending_) {
    if (!late && std::chrono::steady_clock::now() >= deadline) {
      late = true;
      resolver_.cancel();
      close();
    }
    waiting_ = true;
    co_await point_.wait_until(late ? TimePoint::max() : deadline);
    waiting_ = false;
  }
  if (late) co_return time_ran_out(what);
  co_return ended(what);
}

Error ClientConnection::time_ran_out(std::string_view what) const {
  return {ErrorCode::kDeadlineExceeded, origin_ + ": time ran out to " + std::string(what)};
}

Status ClientConnection::ended(std::string_view what) {
  if (!error_) return {};
  SSL* ssl = transport_.tls() ? transport_.tls()->native_handle() : nullptr;
  return Error{ErrorCode::kUnavailable, origin_ + ": cannot " + std::string(what) + ": " + reason(error_, ssl)};
}

asio::awaitable<Status> ClientConnection::connect(const Url& url, const TlsContext& tls, bool verify,
                                                  TimePoint deadline) {
  auto self = shared_from_this();
  Tcp::resolver::results_type found;
  begin();
  resolver_.async_resolve(url.host, std::to_string(url.port), [self, &found](IoError error, auto results) {
    if (!error) found = results;
    self->on_done(error, 0);
  });
  Status resolved = co_await finish("find the host's address", deadline);
  if (!resolved.ok()) co_return resolved;
  Endpoints endpoints;
  for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  co_return co_await connect_to(std::move(endpoints), url, tls, verify, deadline);
}

asio::awaitable<Status> ClientConnection::connect_to(Endpoints endpoints, const Url& url, const TlsContext& tls,
                                                     bool verify, TimePoint deadline) {
  auto self = shared_from_this();
  begin();
  // The list is the handler's, which outlives this frame when the frame is dropped half-way.
  auto list = std::make_shared<const Endpoints>(std::move(endpoints));
  asio::async_connect(transport_.socket(), *list,
                      [self, list](IoError error, const Tcp::endpoint&) { self->on_done(error, 0); });
  Status connected = co_await finish("connect", deadline);
  if (!connected.ok()) co_return connected;
  IoError ignored;
  transport_.socket().set_option(Tcp::no_delay(true), ignored);
  transport_.socket().non_blocking(true, ignored);
  if (!url.tls) co_return Status();
  co_return co_await secure(url, tls, verify, deadline);
}

asio::awaitable<Status> ClientConnection::secure(const Url& url, const TlsContext& tls, bool verify,
                                                 TimePoint deadline) {
  transport_.use_tls(*tls);
  ::SSL_set_tlsext_host_name(transport_.tls()->native_handle(), url.host.c_str());
  IoError error;
  if (verify) transport_.tls()->set_verify_callback(asio::ssl::host_name_verification(url.host), error);
  begin();
  auto self = shared_from_this();
  transport_.tls()->async_handshake(asio::ssl::stream_base::client,
                                    [self](IoError failed) { self->on_done(failed, 0); });
  co_return co_await finish("set up TLS", deadline);
}

std::optional<Status> ClientConnection::write_at_once(WriteBuffers& buffers) {
  IoError error;
  consume(buffers, transport_.write_now(buffers, error));
  if (error) return Error{ErrorCode::kUnavailable, origin_ + ": cannot send the request: " + error.message()};
  return bytes_in(buffers) == 0 ? std::optional<Status>(Status()) : std::nullopt;
}

asio::awaitable<Status> ClientConnection::write(WriteBuffers buffers, TimePoint deadline) {
  auto self = shared_from_this();
  while (bytes_in(buffers) > 0) {
    begin();
    transport_.async_write_some(buffers, [self](IoError error, size_t count) { self->on_done(error, count); });
    Status written = co_await finish("send the request", deadline);
    if (!written.ok()) co_return written;
    consume(buffers, count_);
  }
  co_return Status();
}

asio::awaitable<Result<size_t>> ClientConnection::read(TimePoint deadline) {
  auto self = shared_from_this();
  if (std::chrono::steady_clock::now() >= deadline) {  // who sends without end never lets a read wait for it
    close();
    co_return time_ran_out("read the response");
  }
  begin();
  transport_.async_read_some(inbox_.room(kReadBytes),
                             [self](IoError error, size_t count) { self->on_done(error, count); });
  waiting_ = true;
  co_await point_.wait_until(deadline);
  waiting_ = false;
  Status read;
  if (pending_)  // the deadline, most likely
    read = co_await finish("read the response", deadline);
  else
    read = ended("read the response");
  inbox_.arrived(count_);
  if (!read.ok()) {
    const bool closed = error_ == asio::error::eof || error_ == asio::ssl::error::stream_truncated;
    if (closed) co_return size_t(0);
    co_return std::move(read).error();
  }
  co_return count_;
}

bool ClientConnection::still_open() {
  if (!transport_.socket().is_open() || !inbox_.empty()) return false;
  IoError error;
  char byte;
  transport_.socket().receive(asio::buffer(&byte, 1), Tcp::socket::message_peek, error);
  if (transport_.tls() && !error) return true;  // a session ticket, which the next read takes
  return error == asio::error::would_block;
}

}  // namespace spillway::net
