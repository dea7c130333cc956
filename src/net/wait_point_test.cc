#include "net/wait_point.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

#include "net/channel.h"

namespace spillway::net {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TEST(WaitPoint, WakesBeforeItsDeadline) {
  asio::io_context context(1);
  WaitPoint point(context.get_executor());
  bool woken = false;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        co_await point.wait_until(TimePoint::max());
        woken = true;
      },
      asio::detached);
  context.poll();
  EXPECT_FALSE(woken);
  point.wake();
  EXPECT_TRUE(woken) << "wake() resumes in place";
  point.wake();  // nobody waits
}

TEST(WaitPoint, EachDeadlineIsKept) {
  asio::io_context context(1);
  WaitPoint point(context.get_executor());
  int waits = 0;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        // Later, earlier and past ones: the timer is set for none, one or the other of them.
        for (const int ms : {30, 5, 60, -5, 10}) {
          const TimePoint deadline = Clock::now() + milliseconds(ms);
          co_await point.wait_until(deadline);
          EXPECT_GE(Clock::now(), deadline) << "after " << ms << " ms";
          ++waits;
        }
      },
      asio::detached);
  context.run();
  EXPECT_EQ(waits, 5);
}

TEST(WaitPoint, WakeUpsAndDeadlinesByTurns) {
  asio::io_context context(1);
  WaitPoint point(context.get_executor());
  int woken = 0;
  bool late = false;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        const TimePoint far = Clock::now() + std::chrono::hours(1);
        for (; woken < 100; ++woken) co_await point.wait_until(woken % 2 ? far : far - std::chrono::minutes(woken));
        const TimePoint near = Clock::now() + milliseconds(5);
        co_await point.wait_until(near);
        late = Clock::now() >= near;
      },
      asio::detached);
  context.poll();
  for (int i = 0; i < 100; ++i) point.wake();
  EXPECT_EQ(woken, 100);
  context.run();
  EXPECT_TRUE(late);
}

TEST(WaitPoint, AFrameThatHoldsItselfEndsWithTheContext) {
  bool ended = false;
  struct Witness {
    bool& ended;
    ~Witness() { ended = true; }
  };
  {
    asio::io_context context(1);
    auto point = std::make_shared<WaitPoint>(context.get_executor());
    asio::co_spawn(
        context,
        [](std::shared_ptr<WaitPoint> own, bool& told) -> asio::awaitable<void> {
          Witness witness{told};
          co_await own->wait_until(Clock::now() + std::chrono::hours(1));
        }(std::move(point), ended),
        asio::detached);
    context.poll();
    EXPECT_FALSE(ended);
  }
  EXPECT_TRUE(ended);
}

TEST(WaitPoint, CancellingEndsTheWait) {
  asio::io_context context(1);
  WaitPoint point(context.get_executor());
  asio::cancellation_signal cancel;
  bool ended = false, failed = false;
  const auto wait = [&]() -> asio::awaitable<void> {
    for (;;) co_await point.wait_until(TimePoint::max());
  };
  asio::co_spawn(context, wait, asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr failure) {
                   ended = true;
                   failed = failure != nullptr;
                 }));
  context.poll();
  EXPECT_FALSE(ended);
  cancel.emit(asio::cancellation_type::terminal);
  context.poll();
  EXPECT_TRUE(ended);
  EXPECT_TRUE(failed) << "a cancelled coroutine leaves at its next wait";
}

TEST(WaitPoint, ASignalOutlivesItsContext) {
  std::shared_ptr<Signal> kept;
  {
    asio::io_context context(1);
    kept = std::make_shared<Signal>(context.get_executor());
    asio::co_spawn(
        context,
        [](std::shared_ptr<Signal> signal) -> asio::awaitable<void> {
          co_await signal->wait_until(Clock::now() + std::chrono::hours(1));
        }(kept),
        asio::detached);
    context.poll();
  }
  kept->notify();  // nobody hears it, nothing breaks
}

TEST(WaitPoint, NotificationsFromAnotherThread) {
  asio::io_context context(1);
  auto channel = std::make_shared<Channel<int>>(context.get_executor(), 1 << 20);
  constexpr int kCount = 20000;
  long sum = 0;
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        for (int got = 0; got < kCount;) {
          const std::deque<int> values = co_await channel->pop_all_until(TimePoint::max());
          for (const int value : values) sum += value;
          got += int(values.size());
        }
      },
      asio::detached);
  std::thread producer([&] {
    for (int i = 1; i <= kCount; ++i) channel->push(int(i));
  });
  context.run();
  producer.join();
  EXPECT_EQ(sum, long(kCount) * (kCount + 1) / 2);
}

}  // namespace
}  // namespace spillway::net
