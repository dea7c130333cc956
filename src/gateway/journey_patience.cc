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
  patience_ = std::make_shared<Patience>();
  patience_->wake = std::make_shared<net::Signal>(lane_->executor());
  patience_->over = std::make_shared<net::Signal>(lane_->executor());
  const auto run = [](std::shared_ptr<Patience> patience, net::ResponseWriter& writer, net::Headers fields,
                      Duration every) -> asio::awaitable<void> {
    bool alive = true;
    while (alive && !patience->stop) {
      const bool woken = co_await patience->wake->wait_until(std::chrono::steady_clock::now() + every);
      if (woken || patience->stop) break;
      if (!writer.started()) alive = co_await writer.start_stream(200, std::move(fields));
      std::string comment;
      net::append_sse_comment(comment, "keep-alive");
      if (alive) alive = co_await writer.write(comment);
      keep_alives_total->add();
    }
    patience->ended = true;
    patience->over->notify();
  };
  asio::co_spawn(lane_->executor(), run(patience_, writer_, stream_headers(), interval), asio::detached);
}

// Nobody but the journey writes once this returns.
asio::awaitable<void> Journey::end_patience() {
  if (!patience_) co_return;
  patience_->stop = true;
  patience_->wake->notify();
  while (!patience_->ended) co_await patience_->over->wait_until(TimePoint::max());
  patience_.reset();
}

}  // namespace spillway::gateway
