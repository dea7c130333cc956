#include "net/client_exchange.h"

#include <utility>

namespace spillway::net {

ClientExchange::ClientExchange(std::shared_ptr<ConnectionPool> pool, std::shared_ptr<ClientConnection> connection,
                               bool head_only, uint64_t body_bytes_max)
    : pool_(std::move(pool)),
      connection_(std::move(connection)),
      parser_(head_only, body_bytes_max),
      head_only_(head_only),
      body_bytes_max_(body_bytes_max) {}

ClientExchange::~ClientExchange() {
  if (connection_) connection_->close();
}

void ClientExchange::cancel() {
  cancelled_ = true;
  if (connection_) connection_->close();
}

asio::awaitable<Status> ClientExchange::send(std::string_view head, std::string_view body, TimePoint deadline) {
  WriteBuffers buffers = pieces(head, body);
  std::optional<Status> written = connection_->write_at_once(buffers);
  if (!written) written = co_await connection_->write(buffers, deadline);
  if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
  co_return std::move(*written);
}

asio::awaitable<Status> ClientExchange::read_head(TimePoint deadline) {
  for (;;) {
    Status fed = feed();
    if (!fed.ok()) co_return fed;
    if (parser_.header_done() && (parser_.status() >= 200 || parser_.status() == 101)) co_return Status();
    if (parser_.header_done()) {
      parser_ = ResponseParser(head_only_, body_bytes_max_);
      continue;
    }
    auto read = co_await connection_->read(deadline);
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    if (!read.ok()) co_return std::move(read).error();
    any_bytes_ |= *read > 0;
    if (*read > 0) continue;
    Status end = parser_.end_of_stream();
    if (!end.ok()) co_return std::move(end).error().in(connection_->origin());
  }
}

asio::awaitable<Result<std::string_view>> ClientExchange::read(TimePoint deadline) {
  piece_.clear();
  for (;;) {
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    if (!parser_.body().empty()) {
      piece_.swap(parser_.body());
      if (parser_.done()) finish();
      co_return std::string_view(piece_);
    }
    if (parser_.done()) finish();
    if (!connection_) co_return std::string_view();
    auto read = co_await connection_->read(deadline);
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    if (!read.ok()) co_return std::move(read).error();
    Status next = *read == 0 ? parser_.end_of_stream() : feed();
    if (!next.ok()) co_return std::move(next).error().in(connection_->origin());
  }
}

Status ClientExchange::feed() {
  SW_ASSIGN(const size_t used, parser_.feed(connection_->inbox().bytes()));
  connection_->inbox().consume(used);
  return {};
}

void ClientExchange::finish() {
  if (!connection_) return;
  if (parser_.keep_alive() && connection_->inbox().empty()) {
    pool_->give_back(std::exchange(connection_, nullptr));
  } else {
    std::exchange(connection_, nullptr)->close();
  }
}

std::string request_head(std::string_view method, const Url& url, const Headers& headers, size_t body_bytes) {
  std::string out;
  out.reserve(256 + url.target.size());
  out.append(method).append(" ").append(url.target).append(" HTTP/1.1\r\n");
  if (!headers.contains("Host")) out.append("Host: ").append(url.authority()).append("\r\n");
  for (const auto& [name, value] : headers) {
    if (equals_ignoring_case(name, "Content-Length") || equals_ignoring_case(name, "Connection")) continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (body_bytes > 0 || method == "POST" || method == "PUT") {
    out.append("Content-Length: ").append(std::to_string(body_bytes)).append("\r\n");
  }
  return out.append("\r\n");
}

}  // namespace spillway::net
