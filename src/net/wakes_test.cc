#include "net/wakes.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <stdexcept>

#include "net/channel.h"

namespace spillway::net {
namespace {

class WakesTest : public ::testing::Test {
 protected:
  static constexpr int kSignals = 100;

  // Waits for signal i, then notes it.
  asio::awaitable<void> wait(int i) {
    co_await signals_[size_t(i)]->wait_until(TimePoint::max());
    order_.push_back(i);
    if (i == fails_) throw std::runtime_error("of a handler");
  }

  WakesTest() {
    for (int i = 0; i < kSignals; ++i) {
      signals_.push_back(std::make_shared<Signal>(context_->get_executor()));
      asio::co_spawn(*context_, wait(i), [](std::exception_ptr failure) {
        if (failure) std::rethrow_exception(failure);
      });
    }
    context_->poll();
  }

  std::vector<int> order_;
  int fails_ = -1;
  std::unique_ptr<asio::io_context> context_ = std::make_unique<asio::io_context>(1);
  std::vector<std::shared_ptr<Signal>> signals_;
};

TEST_F(WakesTest, ResumesAllInOrderAndLetsOthersIn) {
  for (const auto& signal : signals_) signal->notify();
  size_t before = 0;
  asio::post(*context_, [&] { before = order_.size(); });
  context_->run();
  ASSERT_EQ(order_.size(), size_t(kSignals));
  EXPECT_TRUE(std::is_sorted(order_.begin(), order_.end()));
  EXPECT_GT(before, 0u);
  EXPECT_LT(before, size_t(kSignals)) << "what was posted meanwhile waits for some, not for all";
}

TEST_F(WakesTest, OfABurstComeAtItsEnd) {
  {
    const Burst burst;
    for (const auto& signal : signals_) signal->notify();
    { const Burst inner; }
    context_->poll();
    EXPECT_TRUE(order_.empty());
  }
  context_->run();
  EXPECT_EQ(order_.size(), size_t(kSignals));
}

TEST_F(WakesTest, ABurstMayEndAfterTheContext) {
  const Burst burst;
  for (const auto& signal : signals_) signal->notify();
  context_.reset();
  for (const auto& signal : signals_) EXPECT_EQ(signal.use_count(), 1);
}

TEST_F(WakesTest, AThrowingCoroutineDoesNotLoseTheOthers) {
  fails_ = 40;
  for (const auto& signal : signals_) signal->notify();
  EXPECT_THROW(context_->run(), std::runtime_error);
  context_->run();
  EXPECT_EQ(order_.size(), size_t(kSignals));
}

TEST_F(WakesTest, AContextThatEndsLetsItsSignalsGo) {
  for (const auto& signal : signals_) signal->notify();
  context_->run_one();  // some
  EXPECT_LT(order_.size(), size_t(kSignals));
  context_.reset();
  for (const auto& signal : signals_) {
    EXPECT_EQ(signal.use_count(), 1);
    signal->notify();  // nobody hears it
  }
}

}  // namespace
}  // namespace spillway::net
