#include <utility>

#include "gateway/source.h"

namespace spillway::gateway {
namespace {

class RemoteSource final : public Source {
 public:
  RemoteSource(std::shared_ptr<Lane> lane, std::shared_ptr<const Upstream> upstream, net::TlsContext tls,
               OutgoingRequest request, uint64_t body_bytes_max)
      : lane_(std::move(lane)),
        upstream_(std::move(upstream)),
        tls_(std::move(tls)),
        request_(std::move(request)),
        url_(net::join_path(upstream_->options().base, request_.path)),
        body_bytes_max_(body_bytes_max) {}

  asio::awaitable<Status> open(TimePoint connect_deadline, TimePoint deadline) override {
    const std::string head = net::request_head(request_.method, url_, request_.headers, request_.body.size());
    const std::string& address = upstream_->options().address;
    const std::string origin = address.empty() ? url_.origin() : url_.origin() + " at " + address;
    for (;;) {
      if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
      auto connection = lane_->pool()->take(origin, net::ConnectionPool::Check::kNone);
      const bool reused = connection != nullptr;
      if (!reused) {
        auto connected = co_await connect(origin, connect_deadline);
        if (!connected.ok()) co_return std::move(connected).error();
        connection = std::move(connected).value();
      }
      exchange_ = std::make_unique<net::ClientExchange>(lane_->pool(), std::move(connection), false, body_bytes_max_);
      Status written = co_await exchange_->send(head, request_.body, deadline);
      if (!written.ok() && written.error().code == ErrorCode::kDeadlineExceeded) co_return written;
      // Who refuses may answer before it has read everything, and close: its answer is worth reading.
      Status answered = co_await exchange_->read_head(deadline);
      if (answered.ok()) co_return Status();
      if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
      const bool closed_meanwhile =
          reused && !exchange_->any_bytes() && answered.error().code == ErrorCode::kUnavailable;
      if (!closed_meanwhile) co_return answered;
    }
  }

  int status() const override { return exchange_->status(); }
  const net::Headers& headers() const override { return exchange_->headers(); }
  asio::awaitable<Result<std::string_view>> read(TimePoint deadline) override { return exchange_->read(deadline); }

  void cancel() override {
    cancelled_ = true;
    if (connecting_) connecting_->close();
    if (exchange_) exchange_->cancel();
  }

 private:
  asio::awaitable<Result<std::shared_ptr<net::ClientConnection>>> connect(const std::string& origin,
                                                                          TimePoint deadline) {
    const std::string& address = upstream_->options().address;
    auto addresses = co_await lane_->resolve(address.empty() ? url_.host : address, url_.port, deadline);
    if (!addresses.ok()) co_return std::move(addresses).error();
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    connecting_ = std::make_shared<net::ClientConnection>(lane_->executor(), origin);
    Status connected = co_await connecting_->connect_to(std::move(addresses).value(), url_, tls_,
                                                        upstream_->options().tls_verify, deadline);
    auto connection = std::exchange(connecting_, nullptr);
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    if (!connected.ok()) co_return std::move(connected).error();
    co_return connection;
  }

  const std::shared_ptr<Lane> lane_;
  const std::shared_ptr<const Upstream> upstream_;
  const net::TlsContext tls_;
  const OutgoingRequest request_;
  const net::Url url_;
  const uint64_t body_bytes_max_;
  std::shared_ptr<net::ClientConnection> connecting_;
  std::unique_ptr<net::ClientExchange> exchange_;
  bool cancelled_ = false;
};

}  // namespace

std::unique_ptr<Source> remote_source(std::shared_ptr<Lane> lane, std::shared_ptr<const Upstream> upstream,
                                      net::TlsContext tls, OutgoingRequest request, uint64_t body_bytes_max) {
  return std::make_unique<RemoteSource>(std::move(lane), std::move(upstream), std::move(tls), std::move(request),
                                        body_bytes_max);
}

}  // namespace spillway::gateway
