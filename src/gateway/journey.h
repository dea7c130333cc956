// Journey: one request's way through the gateway, from the choice of an upstream to its one terminal outcome: an
// answer, a refusal, or an error told in the stream. Owned by the coroutine that runs it, on its connection's thread.
// Written in parts: journey.cc the whole way, journey_choice.cc who is asked, journey_race.cc first tokens and hedges,
// journey_answer.cc what the client is told, journey_patience.cc comments meanwhile, journey_shared.cc answers that
// others asked for too.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gateway/attempt.h"
#include "gateway/gateway.h"
#include "gateway/tenants.h"
#include "metrics/timeline.h"

namespace spillway::gateway {

class Journey {
 public:
  Journey(std::shared_ptr<Gateway> gateway, std::shared_ptr<Lane> lane, std::shared_ptr<const Call> call,
          net::ResponseWriter& writer);
  ~Journey();
  Journey(const Journey&) = delete;
  Journey& operator=(const Journey&) = delete;

  asio::awaitable<Answered> run();

 private:
  // What the client's leaving reaches while attempts come and go.
  struct Leaving {
    bool left = false;
    std::vector<std::shared_ptr<Attempt>> running;
    std::shared_ptr<net::Signal> signal;
  };
  // An attempt on its way to its first token.
  struct Contender {
    std::shared_ptr<Attempt> attempt;
    size_t upstream = 0;
    std::optional<Step> step;  // how begin() ended
  };

  // The timer, and once it has fired the coroutine, that sends comments while the first token is awaited.
  struct Patience {
    explicit Patience(const asio::any_io_executor& executor) : timer(executor) {}
    asio::steady_timer timer;
    Journey* journey = nullptr;  // null: the wait is over
    bool running = false;        // the coroutine writes to the client
    std::shared_ptr<net::Signal> wake, over;
  };

  // ---- journey.cc ----
  bool is_free() const;                   // nobody is asked who he is
  asio::awaitable<bool> admit();          // the tenant's right and reservation
  asio::awaitable<void> serve();          // what is neither kept nor under way for somebody else
  asio::awaitable<Step> try_upstreams();  // until one gives its first token, or none can
  static void count_attempt(Attempt& attempt, const char* result);
  void conclude_answered();
  void note_failure(const std::shared_ptr<Attempt>& attempt, size_t upstream, const Step& step);
  asio::awaitable<bool> await_budget(bool free);
  asio::awaitable<void> pause(Duration time, TimePoint until = TimePoint::max());
  void settle();
  bool left() const { return leaving_->left; }
  void set_answered(int status, const char* outcome) {
    answered_.status = status;
    answered_.outcome = outcome;
  }

  // ---- journey_choice.cc ----
  asio::awaitable<bool> choose();  // sets attempt_; false when there is none, with the reason in last_
  bool choose_at_once();           // the same where nobody waits and there is room
  bool pick(TimePoint at);         // starts the best who has room
  bool start(size_t upstream, bool force);
  bool only_local() const;
  bool leave_short_contexts();
  bool start_by_force(TimePoint at);
  bool fits(size_t upstream) const;  // whether it may be asked at all, at this stage
  bool wait_in_line(TimePoint at, TimePoint until);
  void leave_line(bool started);
  std::optional<bool> await_turn(TimePoint at);
  Duration next_look(Duration look) const;
  void refuse(const char* reason, std::string message, Duration wait);
  bool nobody_ever(TimePoint at);
  bool is_last_chance() const;

  // ---- journey_race.cc ----
  asio::awaitable<Step> first_token();
  asio::awaitable<Step> race(Duration patience);
  std::optional<Duration> hedge_patience() const;
  TimePoint first_token_deadline() const;
  std::shared_ptr<Contender> contend();
  std::shared_ptr<Contender> hedge();
  asio::awaitable<Step> await_winner(std::shared_ptr<Contender> first, std::shared_ptr<Contender> second);
  void forget(const std::shared_ptr<Attempt>& attempt);
  void shadow(size_t upstream);

  // ---- journey_answer.cc ----
  asio::awaitable<void> relay();
  void note_first_token();
  asio::awaitable<bool> take_up(const Step& broken);
  asio::awaitable<void> tell_error(const Step& step);
  asio::awaitable<bool> write(std::string_view bytes);
  asio::awaitable<void> send_error(api::ApiError error, std::optional<Duration> retry_after = {});
  asio::awaitable<void> send_whole(int status);
  asio::awaitable<void> send_estimate();  // of a count of tokens
  net::Headers headers(std::string content_type) const;
  net::Headers stream_headers() const;
  void finish_log();
  void record_span();
  void mark(metrics::Moment::Kind kind, std::string_view note) const;  // in the request's timeline

  // ---- journey_patience.cc ----
  void begin_patience();
  static asio::awaitable<void> comment(std::shared_ptr<Patience> patience, net::Headers fields, Duration every);
  asio::awaitable<void> end_patience();

  // ---- journey_shared.cc ----
  bool may_be_spared() const;
  asio::awaitable<bool> answer_from_others();
  asio::awaitable<bool> send_kept(std::shared_ptr<const CachedResponse> kept, const char* how);
  void share();

  const std::shared_ptr<Gateway> gateway_;
  const std::shared_ptr<Lane> lane_;
  const std::shared_ptr<const Call> held_call_;
  const Call& call_;
  net::ResponseWriter& writer_;
  const std::shared_ptr<Leaving> leaving_;
  std::shared_ptr<Attempt> attempt_;
  std::shared_ptr<Attempt> broken_;  // whose stream stopped in its middle
  Reservation reservation_;
  RateLimits limits_;
  Caller caller_;
  int priority_ = 0;
  std::string last_upstream_;
  std::set<size_t> tried_;  // that failed at this request, in this round
  std::set<size_t> unfit_;  // that cannot do what is asked, whenever
  int attempts_ = 0;
  size_t current_ = 0;
  std::optional<size_t> again_;  // may be asked once more
  bool asked_again_ = false;
  bool was_open_ = false;  // the upstream that failed last is out of service
  Step last_;
  std::shared_ptr<WaitingLine::Place> place_;
  std::shared_ptr<Patience> patience_;
  std::shared_ptr<const Resume> resume_;
  std::string shared_key_;  // of the answer, where it may be kept or shared
  bool leads_ = false;      // others wait for this answer
  Answered answered_;
  Duration waited_{};
  std::optional<Duration> first_token_after_;
  double cached_expected_ = 0;  // tokens of the prompt that the choice counted on
  std::vector<AttemptSpan> spans_;
};

}  // namespace spillway::gateway
