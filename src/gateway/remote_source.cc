#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "gateway/source.h"

namespace spillway::gateway {
namespace {

constexpr Duration kSpareDelay = std::chrono::milliseconds(1);  // requests and tokens under way go first

using Connection = std::shared_ptr<net::ClientConnection>;

std::string origin_of(const UpstreamOptions& upstream) {
  return upstream.address.empty() ? upstream.base.origin() : upstream.base.origin() + " at " + upstream.address;
}

asio::awaitable<Result<Lane::Endpoints>> endpoints_of(const UpstreamOptions& upstream, Lane& lane, TimePoint deadline) {
  return lane.resolve(upstream.address.empty() ? upstream.base.host : upstream.address, upstream.base.port, deadline);
}

// One more connection for whoever comes next. Nobody is told when it fails: he will be, when he tries himself.
asio::awaitable<void> open_spare(std::shared_ptr<Lane> lane, std::shared_ptr<const Upstream> upstream,
                                 net::TlsContext tls, std::string origin) {
  struct Opening {
    explicit Opening(Lane::Traffic& traffic) : traffic(traffic) { ++traffic.opening; }
    ~Opening() { --traffic.opening; }
    Lane::Traffic& traffic;
  } opening(lane->traffic(origin));
  asio::steady_timer timer(lane->executor(), kSpareDelay);
  co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  const UpstreamOptions& options = upstream->options();
  const TimePoint deadline = std::chrono::steady_clock::now() + options.connect_timeout;
  auto addresses = co_await endpoints_of(options, *lane, deadline);
  if (!addresses.ok()) co_return;
  auto connection = std::make_shared<net::ClientConnection>(lane->executor(), origin);
  Status connected =
      co_await connection->connect_to(std::move(addresses).value(), options.base, tls, options.tls_verify, deadline);
  if (connected.ok()) lane->pool()->give_back(std::move(connection));
}

class RemoteSource final : public Source {
 public:
  RemoteSource(std::shared_ptr<Lane> lane, std::shared_ptr<const Upstream> upstream, net::TlsContext tls,
               OutgoingRequest request, uint64_t body_bytes_max)
      : lane_(std::move(lane)),
        upstream_(std::move(upstream)),
        tls_(std::move(tls)),
        request_(std::move(request)),
        url_(net::join_path(upstream_->options().base, request_.path)),
        origin_(origin_of(upstream_->options())),
        body_bytes_max_(body_bytes_max),
        traffic_(lane_->traffic(origin_)) {
    ++traffic_.under_way;
  }
  ~RemoteSource() override { --traffic_.under_way; }

  asio::awaitable<Status> open(TimePoint connect_deadline, TimePoint deadline) override {
    const std::string head = net::request_head(request_.method, url_, request_.headers, request_.body.size());
    for (;;) {
      if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
      auto connection = lane_->pool()->take(origin_, net::ConnectionPool::Check::kNone);
      const bool reused = connection != nullptr;
      if (!reused) {
        auto connected = co_await connect(connect_deadline);
        if (!connected.ok()) co_return std::move(connected).error();
        connection = std::move(connected).value();
      }
      exchange_ = std::make_unique<net::ClientExchange>(lane_->pool(), std::move(connection), false, body_bytes_max_);
      Status written = co_await exchange_->send(head, request_.body, deadline);
      if (!written.ok() && written.error().code == ErrorCode::kDeadlineExceeded) co_return written;
      if (lane_->wants_spare(origin_, traffic_))
        asio::co_spawn(lane_->executor(), open_spare(lane_, upstream_, tls_, origin_), asio::detached);
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
  asio::awaitable<Result<Connection>> connect(TimePoint deadline) {
    auto addresses = co_await endpoints_of(upstream_->options(), *lane_, deadline);
    if (!addresses.ok()) co_return std::move(addresses).error();
    if (cancelled_) co_return Error{ErrorCode::kCancelled, "cancelled"};
    connecting_ = std::make_shared<net::ClientConnection>(lane_->executor(), origin_);
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
  const std::string origin_;
  const uint64_t body_bytes_max_;
  Lane::Traffic& traffic_;  // of lane_
  Connection connecting_;
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
