#include "net/http_client.h"

#include "net/client_exchange.h"

namespace spillway::net {
namespace {

TimePoint after(Duration duration) { return std::chrono::steady_clock::now() + duration; }

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
  Stream(std::shared_ptr<ConnectionPool> pool, std::shared_ptr<ClientConnection> connection,
         const ClientRequest& request)
      : exchange_(std::move(pool), std::move(connection), request.method == "HEAD", request.body_bytes_max),
        read_timeout_(request.read_timeout) {}

  ClientExchange& exchange() { return exchange_; }
  int status() const override { return exchange_.status(); }
  const Headers& headers() const override { return exchange_.headers(); }
  asio::awaitable<Result<std::string_view>> read() override { return exchange_.read(after(read_timeout_)); }

 private:
  ClientExchange exchange_;
  const Duration read_timeout_;
};

class Client final : public HttpClient {
 public:
  Client(asio::any_io_executor executor, ClientOptions options, TlsContext tls)
      : executor_(std::move(executor)),
        options_(std::move(options)),
        pool_(std::make_shared<ConnectionPool>(options_.idle_connections_max, options_.idle_timeout)),
        tls_(std::move(tls)) {}
  ~Client() override { pool_->clear(); }

  asio::awaitable<Result<std::unique_ptr<ClientStream>>> open(ClientRequest request) override {
    Status checked = check(request);
    if (!checked.ok()) co_return std::move(checked).error();
    if (request.url.tls && !tls_) {  // reading the system's roots takes a while; plain HTTP needs none
      auto made = make_client_tls(options_.tls_ca_file, options_.tls_verify);
      if (!made.ok()) co_return std::move(made).error();
      tls_ = std::move(made).value();
    }
    auto connection = pool_->take(request.url.origin());
    if (!connection) {
      connection = std::make_shared<ClientConnection>(executor_, request.url.origin());
      Status connected =
          co_await connection->connect(request.url, tls_, options_.tls_verify, after(request.connect_timeout));
      if (!connected.ok()) co_return std::move(connected).error();
    }
    const TimePoint deadline = after(request.response_timeout);
    const std::string head = request_head(request.method, request.url, request.headers, request.body.size());
    auto stream = std::make_unique<Stream>(pool_, connection, request);
    Status written = co_await stream->exchange().send(head, request.body, deadline);
    if (!written.ok() && written.error().code == ErrorCode::kDeadlineExceeded) co_return std::move(written).error();
    // A server that refuses may answer before it has read everything, and then close: its answer is worth reading.
    Status answered = co_await stream->exchange().read_head(deadline);
    if (!answered.ok()) co_return written.ok() ? std::move(answered).error() : std::move(written).error();
    co_return std::unique_ptr<ClientStream>(std::move(stream));
  }

 private:
  asio::any_io_executor executor_;
  const ClientOptions options_;
  std::shared_ptr<ConnectionPool> pool_;
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
