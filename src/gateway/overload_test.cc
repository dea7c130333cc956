// Twice what an upstream can do, by events under a simulated clock: requests behave towards the line as Journey does.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "gateway/waiting_line.h"

namespace spillway::gateway {
namespace {

const TimePoint kStart = TimePoint() + std::chrono::hours(1);

struct Scenario {
  const char* name;
  double load = 2, high_share = 0.7, deadline_s = 2;
  int slots = 8;
  double service_s = 0.02, noise = 0.3;  // of a log-normal distribution
  double seconds = 40;
  double burst = 0;       // this much of all comes in the first tenth of each second
  double misses = 0.001;  // of those taken, at most: answers whose times differ widely cannot be foretold one by one
  // Where the deadline is hardly longer than one answer, less is possible: a slot must come free in what is left, and
  // answers longer than the deadline are missed even so.
  double high_least = 0.994, goodput_least = 0.95;
};

struct Share {
  int asked = 0, answered = 0, missed = 0;
  double answered_share() const { return double(answered) / std::max(1, asked); }
};

struct Outcome {
  Share high, low;
  std::vector<double> refused_after_s;
  double busy_s = 0;  // of slots, with answers that came in time
};

class Episode {
 public:
  explicit Episode(const Scenario& scenario) : scenario_(scenario), free_(scenario.slots) {}

  Outcome run() {
    double at = 0;
    const double rate = scenario_.load * scenario_.slots / scenario_.service_s;
    while (at < scenario_.seconds) {
      const double phase = at - std::floor(at);
      const double now_rate =
          scenario_.burst == 0 ? rate : rate * (phase < 0.1 ? scenario_.burst / 0.1 : (1 - scenario_.burst) / 0.9);
      at += std::exponential_distribution<double>(now_rate)(random_);
      plan(at, [this] { arrive(); });
    }
    plan(0.05, [this] { tick(); });
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_s_ = event.at;
      event.act();
      wake();
    }
    return outcome_;
  }

 private:
  struct Event {
    double at;
    uint64_t order;
    std::function<void()> act;
    bool operator<(const Event& other) const { return std::pair(at, order) > std::pair(other.at, other.order); }
  };
  struct Request {
    bool high;
    double came_s;
    std::shared_ptr<WaitingLine::Place> place;
    bool over = false;
  };
  using Held = std::shared_ptr<Request>;

  TimePoint now() const { return kStart + from_seconds(now_s_); }
  void plan(double at, std::function<void()> act) { events_.push({at, order_++, std::move(act)}); }
  Share& share(const Request& request) { return request.high ? outcome_.high : outcome_.low; }

  void arrive() {
    auto request = std::make_shared<Request>();
    request->high = std::uniform_real_distribution<double>()(random_) < scenario_.high_share;
    request->came_s = now_s_;
    ++share(*request).asked;
    const int priority = request->high ? 1 : -1;
    const bool behind = line_.came("m", priority, now());
    if (!behind && free_ > 0) {
      line_.passed("m", now());
      return compute(request);
    }
    const TimePoint deadline = now() + from_seconds(scenario_.deadline_s);
    const auto woken = [this, waiting = std::weak_ptr(request)] {
      if (Held held = waiting.lock()) woken_.push_back(std::move(held));
    };
    const auto entered = line_.enter({"m", priority, now(), deadline, deadline}, woken, now());
    if (!entered.place) return refuse(*request);
    request->place = entered.place;
    firsts_.push_back(request);
    plan(request->came_s + scenario_.deadline_s, [this, request] { look(request); });
  }

  void look(const Held& request) {
    if (request->over) return;
    const WaitingLine::Turn turn = line_.turn(*request->place, now());
    const bool gone = turn == WaitingLine::Turn::kLate || turn == WaitingLine::Turn::kDisplaced;
    if (!gone && turn == WaitingLine::Turn::kFirst && free_ > 0) {
      request->over = true;
      line_.leave(request->place, true, now());
      return compute(request);
    }
    if (turn == WaitingLine::Turn::kFirst) line_.found_nothing(*request->place);
    if (!gone && now_s_ < request->came_s + scenario_.deadline_s) return;
    request->over = true;
    line_.leave(request->place, false, now());
    refuse(*request);
  }

  // Whoever was woken looks; whoever leaves wakes the next.
  void wake() {
    while (!woken_.empty()) {
      const Held request = woken_.back();
      woken_.pop_back();
      look(request);
    }
  }

  void tick() {
    if (!firsts_.empty()) look(firsts_.front());
    while (!firsts_.empty() && firsts_.front()->over) firsts_.pop_front();
    if (now_s_ < scenario_.seconds) plan(now_s_ + 0.05, [this] { tick(); });
  }

  void refuse(const Request& request) { outcome_.refused_after_s.push_back(now_s_ - request.came_s); }

  void compute(const Held& request) {
    --free_;
    const double mean = -scenario_.noise * scenario_.noise / 2;
    const double takes =
        scenario_.service_s * std::exp(std::normal_distribution<double>(mean, scenario_.noise)(random_));
    const double deadline = request->came_s + scenario_.deadline_s, ends = std::min(now_s_ + takes, deadline);
    plan(ends, [this, request, began = now_s_, met = now_s_ + takes <= deadline] {
      ++free_;
      line_.answered("m", from_seconds(now_s_ - began));
      ++(met ? share(*request).answered : share(*request).missed);
      if (met) outcome_.busy_s += now_s_ - began;
      line_.freed();
    });
  }

  const Scenario scenario_;
  std::mt19937_64 random_{7};
  WaitingLine line_{4096};
  std::priority_queue<Event> events_;
  std::vector<Held> woken_;
  std::deque<Held> firsts_;
  uint64_t order_ = 0;
  double now_s_ = 0;
  int free_;
  Outcome outcome_;
};

class Overload : public testing::TestWithParam<Scenario> {};

TEST_P(Overload, IsShedAtOnceAndWhatIsTakenIsAnswered) {
  const Scenario& scenario = GetParam();
  Outcome outcome = Episode(scenario).run();
  const double able = scenario.slots / scenario.service_s * scenario.seconds;
  const double goodput = (outcome.high.answered + outcome.low.answered) / able;
  const int missed = outcome.high.missed + outcome.low.missed;
  std::ranges::sort(outcome.refused_after_s);
  const auto refused_at = [&](double q) {
    const auto& all = outcome.refused_after_s;
    return all.empty() ? 0.0 : all[std::min(all.size() - 1, size_t(q * double(all.size())))];
  };
  const std::string told =
      fmt::format("high {:.2f}%, low {:.2f}%, goodput {:.1f}%, {} missed, refused after p50 {:.3f}, p99 {:.3f} s",
                  100 * outcome.high.answered_share(), 100 * outcome.low.answered_share(), 100 * goodput, missed,
                  refused_at(0.5), refused_at(0.99));
  // What is of high priority is answered, or where that alone is too much, all that is answered is of it.
  if (scenario.load * scenario.high_share < 0.95) {
    EXPECT_GE(outcome.high.answered_share(), scenario.high_least) << told;
  } else {
    EXPECT_GE(outcome.high.answered, 0.94 * able) << told;
    EXPECT_LE(outcome.low.answered_share(), 0.01) << told;
  }
  EXPECT_GE(goodput, scenario.goodput_least) << told;
  EXPECT_LE(missed, scenario.misses * (outcome.high.answered + outcome.low.answered)) << told;
  EXPECT_LE(refused_at(0.5), 0.05 * scenario.deadline_s) << told;
  EXPECT_LE(refused_at(0.99), 0.9 * scenario.deadline_s) << told;
}

INSTANTIATE_TEST_SUITE_P(
    Line, Overload,
    testing::Values(
        Scenario{.name = "Low30Deadline2s"}, Scenario{.name = "Low60Deadline2s", .high_share = 0.4},
        Scenario{.name = "Low30DeadlineHalfS", .deadline_s = 0.5},
        Scenario{.name = "Low60DeadlineHalfS", .high_share = 0.4, .deadline_s = 0.5},
        Scenario{.name = "Low30Deadline30s", .deadline_s = 30, .seconds = 120},
        Scenario{.name = "Low60Deadline30s", .high_share = 0.4, .deadline_s = 30, .seconds = 120},
        Scenario{.name = "Low60Noisy", .high_share = 0.4, .noise = 1},
        Scenario{.name = "Low60Bursts", .high_share = 0.4, .burst = 0.5},
        Scenario{.name = "Low60TenTimes", .load = 10, .high_share = 0.08},
        Scenario{.name = "Low60SlowAnswers",
                 .high_share = 0.4,
                 .slots = 16,
                 .service_s = 0.6,
                 .noise = 0.4,
                 .seconds = 400,
                 .misses = 0.01},
        // High alone, without any low: 84%, 95%.
        Scenario{.name = "Low60DeadlineOneAndAHalfAnswers",
                 .high_share = 0.4,
                 .deadline_s = 0.9,
                 .slots = 16,
                 .service_s = 0.6,
                 .noise = 0.4,
                 .seconds = 400,
                 .misses = 0.25,
                 .high_least = 0.77,
                 .goodput_least = 0.86},
        Scenario{.name = "Low60DeadlineOneAnswerAndAThird",
                 .high_share = 0.4,
                 .deadline_s = 0.8,
                 .slots = 16,
                 .service_s = 0.6,
                 .noise = 0.1,
                 .seconds = 400,
                 .misses = 0.06,
                 .high_least = 0.83,
                 .goodput_least = 0.94},
        Scenario{
            .name = "Low30SlowAnswers", .slots = 16, .service_s = 0.6, .noise = 0.4, .seconds = 400, .misses = 0.03}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace spillway::gateway
