#include "net/http_client.h"

#include <deque>

#include "net/client_connection.h"
#include "net/response_parser.h"

namespace spillway::net {
namespace {

// Kept-alive connections, most recently used last. Shared with the streams under way, which may outlive the client.
struct Pool {
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    TimePoint since;
  };
  ClientOptions options;
  std::deque<Idle> idle;

  std::shared_ptr<ClientConnection> take(const std::string& origin) {
    const TimePoint oldest = std::chrono::steady_clock::now() - options.idle_timeout;
    while (!idle.empty() && idle.front().since < oldest) idle.pop_front();
    for (size_t i = idle.size(); i-- > 0;) {
      if (idle[i].connection->origin() != origin) continue;
      auto connection = std::move(idle[i].connection);
      idle.erase(idle.begin() + long(i));
      if (connection->still_open()) return connection;
    }
    return nullptr;
  }

  void give_back(std::shared_ptr<ClientConnection> connection) {
    idle.push_back({std::move(connection), std::chrono::steady_clock::now()});
    if (idle.size() > options.idle_connections_max) idle.pop_front();
  }
};

TimePoint after(Duration duration) { return std::chrono::steady_clock::now() + duration; }

std::string request_head(const ClientRequest& request) {
  std::string out = request.method + " " + request.url.target + " HTTP/1.1\r\n";
  if (!request.headers.contains("Host")) out += "Host: " + request.url.authority() + "\r\n";
  for (const auto& [name, value] : request.headers) {
    if (equals_ignoring_case(name, "Content-Length") || equals_ignoring_case(name, "Connection")) continue;
    out.append(name).append(": ").append(value).append("\r\n");
  }
  if (!request.body.empty() || request.method == "POST" || request.method == "PUT") {
    out += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  }
  return out + "\r\n";
}

Status check(const ClientRequest& request) {
  constexpr std::string_view kBreaks("\r\n\0", 3);
  for (const auto& [name, value] : request.headers) {
    if (name.find_first_of(kBreaks) != std::string::npos || value.find_first_of(kBreaks) != std::string::npos) {
      return invalid("header " + name.substr(0, 100) + ": expected no line breaks in it");
    }
  }
  return {};
}

class Stream final : public ClientStream {
 public:
  Stream(std::shared_ptr<Pool> pool, std::shared_ptr<ClientConnection> connection, const ClientRequest& request)
      : pool_(std::move(pool)),
        connection_(std::move(connection)),
        parser_(request.method == "HEAD", request.body_bytes_max),
        read_timeout_(request.read_timeout) {}
  ~Stream() override {
    if (connection_) connection_->close();
  }

  int status() const override { return parser_.status(); }
  const Headers& headers() const override { return const_cast<ResponseParser&>(parser_).headers(); }

  // Interim answers (100 to 199) are passed over.
  asio::awaitable<Status> read_header(bool head_only, const ClientRequest& request, TimePoint deadline) {
    for (;;) {
      Status fed = feed();
      if (!fed.ok()) co_return fed;
      if (parser_.header_done() && (parser_.status() >= 200 || parser_.status() == 101)) co_return Status();
      if (parser_.header_done()) {
        parser_ = ResponseParser(head_only, request.body_bytes_max);
        continue;
      }
      auto read = co_await connection_->read(deadline);
      if (!read.ok()) co_return std::move(read).error();
      if (*read == 0) {
        Status end = parser_.end_of_stream();
        if (!end.ok()) co_return std::move(end).error().in(connection_->origin());
      }
    }
  }

  asio::awaitable<Result<std::string_view>> read() override {
    piece_.clear();
    for (;;) {
      if (!parser_.body().empty()) {
        piece_.swap(parser_.body());
        if (parser_.done()) finish();
        co_return std::string_view(piece_);
      }
      if (parser_.done()) finish();
      if (!connection_) co_return std::string_view();
      auto read = co_await connection_->read(after(read_timeout_));
      if (!read.ok()) co_return std::move(read).error();
      Status next = *read == 0 ? parser_.end_of_stream() : feed();
      if (!next.ok()) co_return std::move(next).error().in(connection_->origin());
    }
  }

 private:
  Status feed() {
    SW_ASSIGN(const size_t used, parser_.feed(connection_->inbox().bytes()));
    connection_->inbox().consume(used);
    return {};
  }

  void finish() {
    if (!connection_) return;
    if (parser_.keep_alive() && connection_->inbox().empty()) {
      pool_->give_back(std::exchange(connection_, nullptr));
    } else {
      std::exchange(connection_, nullptr)->close();
    }
  }

  std::shared_ptr<Pool> pool_;
  std::shared_ptr<ClientConnection> connection_;  // null once the body is whole
  ResponseParser parser_;
  Duration read_timeout_;
  std::string piece_;
};

class Client final : public HttpClient {
 public:
  Client(asio::any_io_executor executor, ClientOptions options, TlsContext tls)
      : executor_(std::move(executor)), pool_(std::make_shared<Pool>()), tls_(std::move(tls)) {
    pool_->options = std::move(options);
  }
  ~Client() override { pool_->idle.clear(); }

  asio::awaitable<Result<std::unique_ptr<ClientStream>>> open(ClientRequest request) override {
    Status checked = check(request);
    if (!checked.ok()) co_return std::move(checked).error();
    if (request.url.tls && !tls_) {  // reading the system's roots takes a while; plain HTTP needs none
      auto made = make_client_tls(pool_->options.tls_ca_file, pool_->options.tls_verify);
      if (!made.ok()) co_return std::move(made).error();
      tls_ = std::move(made).value();
    }
    auto connection = pool_->take(request.url.origin());
    if (!connection) {
      connection = std::make_shared<ClientConnection>(executor_, request.url.origin());
      Status connected = co_await connection->connect(request.url, tls_, pool_->options.tls_verify,
                                                      after(request.connect_timeout));
      if (!connected.ok()) co_return std::move(connected).error();
    }
    const TimePoint deadline = after(request.response_timeout);
    const std::string head = request_head(request);
    auto stream = std::make_unique<Stream>(pool_, connection, request);
    Status written = co_await connection->write(head, request.body, deadline);
    if (!written.ok() && written.error().code == ErrorCode::kDeadlineExceeded) co_return std::move(written).error();
    // A server that refuses may answer before it has read everything, and then close: its answer is worth reading.
    Status answered = co_await stream->read_header(request.method == "HEAD", request, deadline);
    if (!answered.ok()) co_return written.ok() ? std::move(answered).error() : std::move(written).error();
    co_return std::unique_ptr<ClientStream>(std::move(stream));
  }

 private:
  asio::any_io_executor executor_;
  std::shared_ptr<Pool> pool_;
  TlsContext tls_;
};

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::create(asio::any_io_executor executor, ClientOptions options) {
  TlsContext tls;  // a file that was named is read now, so that a wrong one is told early
  if (!options.tls_ca_file.empty()) {
    SW_ASSIGN(tls, make_client_tls(options.tls_ca_file, options.tls_verify));
  }
  return std::unique_ptr<HttpClient>(std::make_unique<Client>(std::move(executor), std::move(options), std::move(tls)));
}

asio::awaitable<Result<ClientResponse>> HttpClient::fetch(ClientRequest request) {
  auto stream = co_await open(std::move(request));
  if (!stream.ok()) co_return std::move(stream).error();
  ClientResponse response{(*stream)->status(), (*stream)->headers(), {}};
  for (;;) {
    auto piece = co_await (*stream)->read();
    if (!piece.ok()) co_return std::move(piece).error();
    if (piece->empty()) co_return response;
    response.body.append(*piece);
  }
}

}  // namespace spillway::net
