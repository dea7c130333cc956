// The part of Journey that keeps a waiting client's connection alive: a stream whose first token takes long is begun
// with comments, as DeepSeek's API does, so that nothing between here and the client takes silence for death. From then
// on what goes wrong can only be told in the stream.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

#include "gateway/journey.h"
#include "metrics/metrics.h"
#include "net/sse.h"

namespace spillway::gateway {
namespace {

metrics::Counter keep_alives_total{"spillway_gateway_keep_alives_total",
                                   "Comments sent on streams that wait for their first token."};

}  // namespace

void Journey::begin_patience() {
  const Duration interval = gateway_->options().keep_alive_interval;
  if (!call_.scan.stream || interval <= Duration::zero()) return;
  patience_ = std::make_shared<Patience>(lane_->executor());
  patience_->journey = this;
  patience_->timer.expires_after(interval);
  patience_->timer.async_wait([patience = patience_, interval](boost::system::error_code cancelled) {
    Journey* journey = patience->journey;
    if (cancelled || journey == nullptr) return;
    const asio::any_io_executor executor = journey->lane_->executor();
    patience->running = true;
    patience->wake = std::make_shared<net::Signal>(executor);
    patience->over = std::make_shared<net::Signal>(executor);
    asio::co_spawn(executor, comment(patience, journey->stream_headers(), interval), asio::detached);
  });
}

asio::awaitable<void> Journey::comment(std::shared_ptr<Patience> patience, net::Headers fields, Duration every) {
  std::string text;
  net::append_sse_comment(text, "keep-alive");
  bool alive = true;
  while (alive && patience->journey != nullptr) {
    net::ResponseWriter& writer = patience->journey->writer_;
    if (writer.started()) {
      alive = co_await writer.write(text);
    } else {
      alive = co_await writer.start_stream(200, std::move(fields), text);
    }
    keep_alives_total->add();
    if (!alive || patience->journey == nullptr) break;
    co_await patience->wake->wait_until(std::chrono::steady_clock::now() + every);
  }
  patience->running = false;
  patience->over->notify();
}

// Nobody but the journey writes once this returns.
asio::awaitable<void> Journey::end_patience() {
  if (!patience_) co_return;
  patience_->journey = nullptr;
  patience_->timer.cancel();
  if (patience_->running) patience_->wake->notify();
  while (patience_->running) co_await patience_->over->wait_until(TimePoint::max());
  patience_.reset();
}

}  // namespace spillway::gateway
