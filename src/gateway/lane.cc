#include "gateway/lane.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace spillway::gateway {
namespace {

constexpr Duration kFresh = std::chrono::seconds(30);
constexpr Duration kFailureFresh = std::chrono::seconds(2);
constexpr Duration kIdle = std::chrono::seconds(50);
constexpr int kSparesFrom = 8;  // attempts under way
constexpr int kSparesMax = 8;
constexpr int kAttemptsASpare = 16;

TimePoint now() { return std::chrono::steady_clock::now(); }

}  // namespace

Lane::Lane(asio::any_io_executor executor, size_t idle_connections_max)
    : executor_(std::move(executor)), pool_(std::make_shared<net::ConnectionPool>(idle_connections_max, kIdle)) {}

asio::awaitable<Result<Lane::Endpoints>> Lane::resolve(const std::string& host, uint16_t port, TimePoint deadline) {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (!error) {
    Endpoints one;
    one.emplace_back(address, port);
    co_return one;
  }
  const std::string key = host + ":" + std::to_string(port);
  if (now() >= names_[key].until && !names_[key].asking) ask(key, host, port);
  // Old addresses serve while newer ones are asked for.
  if (!names_[key].endpoints.empty()) co_return names_[key].endpoints;
  if (names_[key].asking) {
    auto signal = std::make_shared<net::Signal>(executor_);
    names_[key].waiting.push_back(signal);
    const bool told = co_await signal->wait_until(deadline);
    if (!told) co_return Error{ErrorCode::kDeadlineExceeded, key + ": time ran out to find the host's address"};
  }
  if (names_[key].endpoints.empty()) {
    co_return Error{ErrorCode::kUnavailable, key + ": cannot find the host's address: " + names_[key].failure};
  }
  co_return names_[key].endpoints;
}

bool Lane::wants_spare(const std::string& origin, const Traffic& traffic) const {
  if (traffic.under_way < kSparesFrom) return false;
  const int wanted = std::clamp(traffic.under_way / kAttemptsASpare, 1, kSparesMax);
  return traffic.opening + int(pool_->size(origin)) < wanted;
}

void Lane::ask(const std::string& key, const std::string& host, uint16_t port) {
  names_[key].asking = true;
  auto resolver = std::make_shared<asio::ip::tcp::resolver>(executor_);
  resolver->async_resolve(host, std::to_string(port),
                          [self = shared_from_this(), resolver, key](boost::system::error_code error, auto results) {
                            Name& name = self->names_[key];
                            name.asking = false;
                            if (error) {
                              name.failure = error.message();
                              name.until = now() + kFailureFresh;
                            } else {
                              name.endpoints.clear();
                              for (const auto& entry : results) name.endpoints.push_back(entry.endpoint());
                              name.until = now() + kFresh;
                            }
                            for (const auto& signal : std::exchange(name.waiting, {})) signal->notify();
                          });
}

}  // namespace spillway::gateway
