// Journey: one request's way through the gateway, from the choice of an upstream to its one terminal outcome: an answer, a
// refusal, or an error told in the stream. Owned by the coroutine that runs it, on its connection's thread.
#pragma once

#include <memory>
#include <set>
#include <string>

#include "gateway/attempt.h"
#include "gateway/gateway.h"
#include "gateway/tenants.h"
#include "metrics/timeline.h"

namespace spillway::gateway {

class Journey {
 public:
  Journey(Gateway& gateway, std::shared_ptr<Lane> lane, Call call, net::ResponseWriter& writer);

  asio::awaitable<Answered> run();

 private:
  // What the client's leaving reaches while attempts come and go.
  struct Leaving {
    bool left = false;
    Attempt* attempt = nullptr;
    std::shared_ptr<net::Signal> signal;
  };

  asio::awaitable<bool> admit();           // the tenant's right and reservation
  asio::awaitable<Step> try_upstreams();   // until one gives its first token, or none can
  asio::awaitable<bool> choose();          // sets attempt_; false at the deadline
  bool start(size_t upstream, bool force);
  bool is_last_chance() const;
  void note_failure(const Step& step);
  asio::awaitable<bool> await_budget(bool free);
  asio::awaitable<void> pause(Duration time);

  asio::awaitable<void> relay();
  asio::awaitable<bool> take_up(const Step& broken);
  asio::awaitable<void> tell_error(const Step& step);
  asio::awaitable<bool> write(std::string_view bytes);

  asio::awaitable<void> send_error(api::ApiError error, std::optional<Duration> retry_after = {});
  net::Headers headers(std::string content_type) const;
  void settle();
  void finish_log();
  void mark(metrics::Moment::Kind kind, std::string_view note) const;   // in the request's timeline
  bool left() const { return leaving_->left; }

  Gateway& gateway_;
  const std::shared_ptr<Lane> lane_;
  const Call call_;
  net::ResponseWriter& writer_;
  const std::shared_ptr<Leaving> leaving_;
  std::unique_ptr<Attempt> attempt_;
  Reservation reservation_;
  Caller caller_;
  std::string last_upstream_;
  std::set<size_t> tried_;          // that failed at this request
  int attempts_ = 0;
  size_t current_ = 0;
  std::optional<size_t> again_;     // may be asked once more
  bool asked_again_ = false;
  bool was_open_ = false;           // the upstream that failed last is out of service
  Step last_;
  std::unique_ptr<Resume> resume_;
  TimePoint committed_at_;
  Answered answered_;
  Duration waited_{};
};

}  // namespace spillway::gateway
